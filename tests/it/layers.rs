//! The house rules that the compiler does not know: who may use whom, and how long a file may be.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What each layer may use beside itself. `app` and `main` see all of them.
const ALLOWED: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("telemetry", &["model"]),
    ("config", &[]),
    ("tls", &[]),
    ("web", &["tls"]),
    ("outside", &["tls", "web"]),
    ("queue", &["model", "telemetry"]),
    ("dialogue", &[]),
    ("messaging", &["dialogue", "teams", "queue", "model", "telemetry"]),
    ("tools", &["dialogue", "messaging", "queue", "model", "telemetry"]),
    ("resources", &["dialogue", "tools", "messaging", "queue", "model", "telemetry"]),
    ("prompts", &["dialogue", "tools", "messaging", "queue", "model", "telemetry"]),
    (
        "mcp",
        &["dialogue", "tools", "resources", "prompts", "messaging", "queue", "model", "telemetry"],
    ),
    ("auth", &["queue", "model", "web"]),
    ("teams", &["auth", "queue", "model"]),
    ("http", &["auth", "teams", "mcp", "messaging", "queue", "model", "telemetry"]),
];

/// Layers without a rule.
const COMPOSERS: &[&str] = &["app", "main", "lib"];

/// What may be named in these places only (prefixes of paths below `src`).
const FENCES: &[(&str, &[&str])] = &[
    ("actix_web::", &["http", "app"]),
    ("fred::", &["queue/redis"]),
    ("prometheus::", &["telemetry"]),
    ("opentelemetry::", &["telemetry"]),
    ("opentelemetry_sdk::", &["telemetry"]),
    ("opentelemetry_otlp::", &["telemetry"]),
    ("tracing_opentelemetry::", &["telemetry"]),
    ("tokio_rustls::", &["tls.rs", "web.rs", "http", "queue/redis", "outside"]),
    ("hyper::", &["web.rs", "outside"]),
    ("ring::", &["auth", "tls.rs"]),
    ("rustls_native_certs::", &["tls.rs"]),
    ("SystemTime", &["model/clock.rs"]),
    ("env::var", &["config"]),
    ("env::vars", &["config"]),
    ("env::args", &["main.rs", "config"]),
];

/// Longest source file, in lines.
const LONGEST: usize = 600;

struct Source {
    /// Below `src`, with `/`.
    path: String,
    /// Without comments.
    code: String,
    lines: usize,
}

impl Source {
    fn layer(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    fn is_in(&self, places: &[&str]) -> bool {
        let within = |place: &str| {
            self.path == place
                || self.path == format!("{place}.rs")
                || self.path.starts_with(&format!("{place}/"))
        };
        places.iter().any(|place| within(place))
    }
}

fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&src, &src, &mut found);
    assert!(found.len() > 10, "the sources were found");
    found
}

fn collect(src: &Path, dir: &Path, found: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(src, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let below = path.strip_prefix(src).unwrap().to_str().unwrap().replace('\\', "/");
            found.push(Source { path: below, code: code_of(&text), lines: text.lines().count() });
        }
    }
}

/// The text without line comments: documentation may name whom it likes.
fn code_of(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules of the crate's root that a text names: `crate::x` and `crate::{x, y::z}`.
fn used_layers(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => used.insert(word(rest)),
            Some(group) => {
                used.extend(group_members(group));
                true
            }
        };
    }
    used
}

/// The first word of every member of a `{...}` whose opening brace was read.
fn group_members(group: &str) -> Vec<String> {
    let (mut depth, mut fresh, mut members) = (1, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            c if fresh && !c.is_whitespace() => {
                members.push(word(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    members
}

fn word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Whether `code` names `fenced` from the beginning of a word on.
fn names(code: &str, fenced: &str) -> bool {
    code.match_indices(fenced).any(|(at, _)| {
        !code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[test]
fn a_layer_uses_the_layers_to_its_right_and_never_those_to_its_left() {
    for source in sources() {
        let layer = source.layer();
        if COMPOSERS.contains(&layer) {
            continue;
        }
        let rule = ALLOWED.iter().find(|(name, _)| *name == layer);
        let Some((_, allowed)) = rule else {
            panic!("src/{}: `{layer}` has no rule in tests/it/layers.rs", source.path)
        };
        for other in used_layers(&source.code) {
            let fine = other == layer || allowed.contains(&other.as_str());
            assert!(fine, "src/{}: `{layer}` must not use `crate::{other}`", source.path);
        }
    }
}

#[test]
fn a_framework_stays_behind_its_fence() {
    for source in sources() {
        for (fenced, places) in FENCES {
            let fine = source.is_in(places) || !names(&source.code, fenced);
            assert!(fine, "src/{}: `{fenced}` belongs into {places:?} only", source.path);
        }
    }
}

#[test]
fn a_source_file_can_be_read_in_one_go() {
    for source in sources() {
        let lines = source.lines;
        assert!(lines <= LONGEST, "src/{} has {lines} lines: split it", source.path);
    }
}

#[test]
fn imports_are_found_in_every_form() {
    let code = code_of(
        "use crate::{\n    model::{Clock, Inbox},\n    queue::QueueError,\n    telemetry,\n};\n\
         fn f(_: crate::http::State) {} // not crate::app\n//! nor [`crate::mcp`]",
    );
    let expected = ["http", "model", "queue", "telemetry"].map(str::to_owned);
    assert_eq!(used_layers(&code), BTreeSet::from(expected));
    assert!(names("use fred::prelude", "fred::") && !names("use alfred::prelude", "fred::"));
}
