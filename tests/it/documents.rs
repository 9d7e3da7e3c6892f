//! Documents say what the program does. `UPDATE_DOCS=1` rewrites what is generated.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use mcp_messaging::config::{DEFAULTS, SHORT_NAMES};
use serde_json::json;

use crate::support::Store;

/// What stands between the marks of a document must be `generated`.
fn holds(document: &str, mark: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(document);
    let text = std::fs::read_to_string(&path).unwrap();
    let begin = format!("<!-- generated: {mark} -->\n");
    let (before, rest) =
        text.split_once(&begin).unwrap_or_else(|| panic!("no {begin} in {document}"));
    let (written, after) = rest.split_once("<!-- end -->").expect("an end");
    let generated = format!("\n{}\n\n", generated.trim());
    if written == generated {
        return;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{begin}{generated}<!-- end -->{after}")).unwrap();
        return;
    }
    let both: Vec<&str> = written.lines().chain(generated.lines()).collect();
    let once = both.iter().filter(|line| both.iter().filter(|other| other == line).count() == 1);
    let once: Vec<_> = once.collect();
    panic!(
        "docs/{document} is not what the program does; UPDATE_DOCS=1 rewrites it. Lines that differ: {once:#?}"
    );
}

/// One setting of `default.toml`.
struct Setting<'a> {
    key: String,
    default: &'a str,
    short: Option<&'a str>,
    meaning: &'a str,
}

/// The settings by section, as they stand in `default.toml`.
fn settings() -> Vec<(&'static str, Vec<Setting<'static>>)> {
    let mut sections: Vec<(&str, Vec<Setting<'_>>)> = Vec::new();
    for line in DEFAULTS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            sections.push((section, Vec::new()));
            continue;
        }
        let (section, settings) = sections.last_mut().expect("a section");
        let (key, rest) = line.split_once(" = ").unwrap_or_else(|| panic!("no setting: {line}"));
        let (default, meaning) = rest.split_once('#').unwrap_or((rest, ""));
        let key = format!("{section}.{key}");
        let meaning = meaning.trim();
        assert!(!meaning.is_empty(), "default.toml says nothing about {key}");
        let (first, others) = meaning.split_once(". ").unwrap_or((meaning, ""));
        let capitals = first.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        let (short, meaning) = if capitals { (Some(first), others) } else { (None, meaning) };
        settings.push(Setting { key, default: default.trim(), short, meaning });
    }
    sections
}

#[test]
fn the_configuration_is_documented_key_by_key() {
    let mut tables = String::new();
    let mut short_names = Vec::new();
    for (section, settings) in settings() {
        let _ = writeln!(
            tables,
            "\n## `[{section}]`\n\n| Key | Default | Environment | Meaning |\n|-|-|-|-|"
        );
        for Setting { key, default, short, meaning } in settings {
            let long = format!("`MCP_MESSAGING__{}`", key.to_uppercase().replace('.', "__"));
            let names = match short {
                Some(short) => {
                    short_names.push((short, key.clone()));
                    format!("`{short}`, {long}")
                }
                None => long,
            };
            let meaning = meaning.replace('|', "\\|");
            let _ = writeln!(tables, "| `{key}` | `{default}` | {names} | {meaning} |");
        }
    }
    holds("configuration.md", "settings", &tables);
    let mut known = SHORT_NAMES.map(|(short, key)| (short, key.to_owned()));
    known.sort();
    short_names.sort();
    assert_eq!(short_names, known, "the short names that default.toml tells of");
}

/// A metric as it is exposed.
#[derive(Default)]
struct Exposed {
    kind: String,
    help: String,
    labels: Vec<String>,
}

fn exposed(text: &str) -> BTreeMap<String, Exposed> {
    let mut metrics: BTreeMap<String, Exposed> = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains("mcp_")) {
        if let Some((name, help)) =
            line.strip_prefix("# HELP ").and_then(|line| line.split_once(' '))
        {
            metrics.entry(name.to_owned()).or_default().help = help.into();
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' '))
        {
            metrics.entry(name.to_owned()).or_default().kind = kind.into();
        } else if let Some((series, labels)) = line.split_once('{') {
            let parts = ["_bucket", "_sum", "_count"];
            let name = parts.iter().find_map(|part| series.strip_suffix(part)).unwrap_or(series);
            let metric = metrics.get_mut(name).unwrap_or_else(|| panic!("untyped: {line}"));
            for label in labels.split("\",").filter_map(|label| label.split_once("=\"")) {
                let label = label.0.to_owned();
                if label != "le" && !metric.labels.contains(&label) {
                    metric.labels.push(label);
                }
            }
        }
    }
    metrics
}

#[tokio::test]
async fn the_metrics_are_documented_name_by_name() {
    // Something of everything, or it would not show.
    let site = Store::Redis.open().await;
    let alice = site.here().agent("alice");
    alice.send("alice", "to myself").await;
    assert_eq!(alice.texts(0).await, ["to myself"]);
    drop(alice.try_call("get_messages", json!({})).await);
    // What one replica alone says of the whole store is said by this one, or by the other.
    let patience = Instant::now() + Duration::from_secs(20);
    let metrics = loop {
        let mut text = site.here().get("/metrics").await.1;
        text += &site.there().get("/metrics").await.1;
        if text.contains("mcp_messaging_sample_timestamp_seconds") {
            break exposed(&text);
        }
        assert!(Instant::now() < patience, "nobody counts the inboxes: {text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let mut table = String::from("| Name | Type | Labels | Help |\n|-|-|-|-|\n");
    for (name, Exposed { kind, help, labels }) in &metrics {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(table, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
    holds("metrics.md", "metrics", &table);
}
