//! Who may ask: `Host` and `Origin`, against DNS rebinding.

use actix_web::http::header::{HOST, HeaderMap, ORIGIN};

use super::state::HttpConfig;
use crate::telemetry::Refusal;

/// Checks both headers; the error names the culprit and the remedy.
pub(super) fn check(headers: &HeaderMap, config: &HttpConfig) -> Result<(), (Refusal, String)> {
    check_host(headers, config)?;
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or("?");
    if origin.is_empty() || origin_allowed(origin, &config.allowed_origins) {
        return Ok(());
    }
    let why = format!("origin {origin:?} is not allowed; add it to http.allowed_origins");
    Err((Refusal::Origin, why))
}

/// Checks `Host` alone, for what pages of every origin may read.
pub(super) fn check_host(
    headers: &HeaderMap,
    config: &HttpConfig,
) -> Result<(), (Refusal, String)> {
    let host = headers.get(HOST).map_or("", |host| host.to_str().unwrap_or("?"));
    if host_allowed(host, &config.allowed_hosts) {
        return Ok(());
    }
    Err((Refusal::Host, format!("host {host:?} is not allowed; add it to http.allowed_hosts")))
}

fn host_allowed(host: &str, allowed: &[String]) -> bool {
    let name = without_port(host);
    allowed.iter().any(|entry| {
        entry == "*" || entry.eq_ignore_ascii_case(name) || entry.eq_ignore_ascii_case(host)
    })
}

fn origin_allowed(origin: &str, allowed: &[String]) -> bool {
    let host = origin.split_once("://").map(|(_, host)| without_port(host));
    allowed.iter().any(|entry| {
        entry == "*"
            || entry.eq_ignore_ascii_case(origin)
            || host.is_some_and(|host| entry.eq_ignore_ascii_case(host))
    })
}

/// `[::1]:80` -> `[::1]`, `localhost:80` -> `localhost`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_ours_are_answered() {
        let allowed = HttpConfig::default().allowed_hosts;
        for good in ["localhost", "LOCALHOST:8123", "127.0.0.1:1", "[::1]:80", "[::1]"] {
            assert!(host_allowed(good, &allowed), "{good}");
        }
        for bad in ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil:80", "::1", "?"] {
            assert!(!host_allowed(bad, &allowed), "{bad}");
        }
        assert!(host_allowed("anything", &["*".into()]));
        assert!(host_allowed("a.example:81", &["a.example:81".into()]));
        assert!(!host_allowed("a.example:82", &["a.example:81".into()]));
    }

    #[test]
    fn an_origin_is_allowed_whole_or_by_its_host() {
        let allowed = ["localhost".to_owned(), "https://app.example".to_owned()];
        for good in ["http://localhost:6274", "https://localhost", "https://app.example"] {
            assert!(origin_allowed(good, &allowed), "{good}");
        }
        for bad in [
            "null",
            "http://evil.example",
            "http://app.example",
            "http://localhost.evil",
            "localhost.evil",
        ] {
            assert!(!origin_allowed(bad, &allowed), "{bad}");
        }
    }
}
