//! Who may name whom: the layers of ARCHITECTURE.md, read from the source text.
//!
//! Comments, string contents and test modules are left out; what remains is split into words and matched against
//! what each layer never names.

use std::fs;
use std::path::{Path, PathBuf};

/// Where a file belongs, by its place under `src/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Pure,
    State,
    Service,
    Gateway,
    Accounts,
    Edge,
    Config,
    Lib,
    Main,
}

use Layer::*;

impl Layer {
    /// The layer of a path relative to `src/`, with its name for messages. A new top-level file has to be added here.
    fn of(path: &str) -> Option<(Layer, &'static str)> {
        let top = path.split('/').next()?;
        Some(match top.strip_suffix(".rs").unwrap_or(top) {
            "pure" => (Pure, "pure"),
            "state" => (State, "state"),
            "service" => (Service, "service"),
            "gateway" => (Gateway, "gateway"),
            "accounts" => (Accounts, "accounts"),
            "edge" => (Edge, "edge"),
            "config" => (Config, "config"),
            "lib" if top == "lib.rs" => (Lib, "lib"),
            "main" if top == "main.rs" => (Main, "main"),
            _ => return None,
        })
    }

    /// What the layer never names.
    fn never(self) -> &'static [&'static str] {
        match self {
            Pure => &[
                "crate::state",
                "crate::service",
                "crate::gateway",
                "crate::accounts",
                "crate::edge",
                "crate::config",
                "warp::",
                "hyper::",
                "hyper_util::",
                "tokio::",
                "tracing::",
                "log::",
                "rusqlite::",
                "governor::",
                "SystemTime",
                "Instant",
                "async",
                "await",
                "std::fs",
                "fs::",
                "std::thread",
                "thread::",
                "std::process",
                "TcpStream",
                "TcpListener",
                "UdpSocket",
            ],
            State => &[
                "crate::service",
                "crate::gateway",
                "crate::accounts",
                "crate::edge",
                "warp::",
                "hyper::",
                "hyper_util::",
                "http::",
            ],
            Service => &["crate::gateway", "crate::accounts", "crate::edge", "warp::"],
            Gateway => &["crate::accounts", "crate::edge", "warp::", "hyper::", "hyper_util::"],
            Accounts => &["crate::gateway", "crate::edge", "warp::", "hyper::", "hyper_util::"],
            Edge => &[],
            Config => &[
                "crate::state",
                "crate::service",
                "crate::gateway",
                "crate::accounts",
                "crate::edge",
                "warp::",
                "hyper::",
                "hyper_util::",
                "tokio::",
                "async",
                "await",
            ],
            Lib | Main => &["warp::", "hyper::", "hyper_util::"],
        }
    }
}

/// What only some files may name, whatever their layer: the names, and the files or folders that may.
const ONLY: &[(&[&str], &[&str])] = &[
    (
        &[
            "SystemTime::now",
            "Instant::now",
            "OffsetDateTime::now_utc",
            "OffsetDateTime::now_local",
            "UtcDateTime::now",
        ],
        &["state/clock.rs"],
    ),
    (&["std::env", "env::"], &["main.rs", "edge/cli.rs", "edge/cli/"]),
    (
        &["print!", "println!", "eprint!", "eprintln!", "io::stdout", "io::stderr", "process::exit"],
        &["main.rs", "edge/cli.rs", "edge/cli/"],
    ),
    // Servers speak HTTP at the edge, clients where upstreams are asked.
    (&["hyper::", "hyper_util::"], &["edge/", "service/upstream/"]),
    (&["dbg!", "todo!", "unimplemented!"], &[]),
    // A group after `crate::` hides from this test which layer it names.
    (&["crate::{", "crate::*"], &[]),
];

#[test]
fn no_layer_names_what_it_must_not() {
    let sources = sources("src");
    assert!(sources.iter().any(|(path, _)| path == "src/lib.rs"), "the sources are not where this test looks");
    let for_tests: Vec<String> = sources.iter().flat_map(|(path, text)| test_files(path, text)).collect();
    let shipped = sources.iter().filter(|(path, _)| !for_tests.contains(path));
    let found: Vec<String> = shipped.flat_map(|(path, text)| check(path.strip_prefix("src/").unwrap(), text)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let folders = ["src", "tests/it", "benches", "bench/src", "fuzz/fuzz_targets"];
    let silent: Vec<String> = folders
        .iter()
        .flat_map(|folder| sources(folder))
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| format!("{path}:1: must open with //! and what the file is for"))
        .collect();
    assert!(silent.is_empty(), "\n{}", silent.join("\n"));
}

#[test]
fn the_test_finds_what_it_looks_for() {
    let bad = r##"//! Names tokio, println! and crate::state in its comment, which is fine.
use tokio::time::sleep;
use std::time::{Duration, SystemTime};
use crate::state::clock;
use super::super::state::keyring;
use super::sibling::state;
/* crate::edge /* nested */ crate::edge */
pub async fn f<'a>(text: &'a str) -> char {
    let words = ("tokio::spawn", r#"crate::edge "quoted" std::env"#, b"dbg!", '"', '\'', "\\\" tokio::x");
    println!("{}", text); // println!
    std::env::var("X");
    'x'
}
#[cfg(test)]
mod more {
    use tokio::sync;
}
use crate::{edge, pure};
#[cfg(test)]
mod tests;
fn last() { dbg!(tokio_like::x, env!("X"), my.fs, print) }
"##;
    let wanted = [
        "src/pure/x.rs:2: pure must not name tokio",
        "src/pure/x.rs:3: pure must not name SystemTime",
        "src/pure/x.rs:4: pure must not name crate::state",
        "src/pure/x.rs:5: pure must not name crate::state",
        "src/pure/x.rs:8: pure must not name async",
        "src/pure/x.rs:10: pure must not name println!",
        "src/pure/x.rs:11: pure must not name std::env",
        "src/pure/x.rs:11: pure must not name env",
        "src/pure/x.rs:18: pure must not name crate::{",
        "src/pure/x.rs:21: pure must not name dbg!",
    ];
    let mut found = check("pure/x.rs", bad);
    found.sort_by_key(|line| line.split(':').nth(1).unwrap().parse::<usize>().unwrap());
    assert_eq!(found, wanted);
    assert_eq!(check("edge/cli.rs", "std::env::args(); println!();"), [""; 0]);
    assert_eq!(check("state/clock.rs", "SystemTime::now();"), [""; 0]);
    assert_eq!(
        check("state/meter.rs", "SystemTime::now();"),
        ["src/state/meter.rs:1: state must not name SystemTime::now"]
    );
    assert_eq!(
        check("gateway.rs", "use super::accounts;"),
        ["src/gateway.rs:1: gateway must not name crate::accounts"]
    );
    assert_eq!(
        check("accounts/mod.rs", "crate::gateway::f"),
        ["src/accounts/mod.rs:1: accounts must not name crate::gateway"]
    );
    assert_eq!(test_files("src/pure/mod.rs", bad), ["src/pure/tests.rs"]);
    assert_eq!(test_files("src/gateway.rs", bad), ["src/gateway/tests.rs"]);
    assert_eq!(check("helpers.rs", "fn f() {}"), ["src/helpers.rs:1: belongs to no layer"]);
    assert_eq!(check("lib/x.rs", "fn f() {}"), ["src/lib/x.rs:1: belongs to no layer"]);
}

/// What one file names and must not, a line each.
fn check(path: &str, text: &str) -> Vec<String> {
    let Some((layer, name)) = Layer::of(path) else {
        return vec![format!("src/{path}:1: belongs to no layer")];
    };
    let everywhere = ONLY.iter().filter(|(_, but)| !but.iter().any(|place| path.starts_with(place)));
    let never = layer.never().iter().chain(everywhere.flat_map(|(names, _)| *names));
    let words = from_the_root(words(&without_test_modules(&without_prose(text))), path);
    never
        .flat_map(|wanted| {
            let pattern: Vec<String> = self::words(wanted).into_iter().map(|(_, word)| word).collect();
            words
                .windows(pattern.len())
                .filter(move |found| found.iter().map(|(_, word)| word).eq(&pattern))
                .map(|found| found[0].0)
                .map(move |line| format!("src/{path}:{line}: {name} must not name {}", wanted.trim_end_matches("::")))
        })
        .collect()
}

/// The code with comments and the contents of strings and characters blanked; the lines stay where they are.
fn without_prose(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(hashes) =
            raw_string(rest).filter(|_| !code.ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = rest.find('"').unwrap() + 1;
            rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len())
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' && is_character(rest) {
            quoted(rest, '\'')
        } else {
            0
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..skipped].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[skipped..];
        }
    }
    code
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// How many hashes open a raw string here, if one does.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let quote = after.trim_start_matches('#');
    quote.starts_with('"').then(|| after.len() - quote.len())
}

/// A character literal, not a lifetime.
fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        _ => chars.next() == Some('\''),
    }
}

/// The length of a literal with backslash escapes, both quotes included.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Blanks each module behind `#[cfg(test)]`, up to the brace that closes it at the same indent, as rustfmt puts it.
fn without_test_modules(code: &str) -> String {
    let mut kept = String::new();
    let mut lines = code.lines().peekable();
    while let Some(line) = lines.next() {
        let module = lines.peek().is_some_and(|next| next.trim_start().starts_with("mod "));
        if line.trim() == "#[cfg(test)]" && module {
            let close = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let opening = lines.next().unwrap_or_default();
            kept.push_str("\n\n");
            if opening.trim_end().ends_with('{') {
                for line in lines.by_ref() {
                    kept.push('\n');
                    if line.trim_end() == close {
                        break;
                    }
                }
            }
        } else {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The files of the modules that a file declares for tests alone.
fn test_files(path: &str, text: &str) -> Vec<String> {
    let folder = match path.rsplit_once('/') {
        Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder,
        _ => path.trim_end_matches(".rs"),
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines
        .windows(2)
        .filter(|pair| pair[0] == "#[cfg(test)]")
        .filter_map(|pair| pair[1].strip_prefix("mod ")?.strip_suffix(';'))
        .map(|module| format!("{folder}/{module}.rs"))
        .collect()
}

/// Names, `::`, and single signs, each with its line.
fn words(code: &str) -> Vec<(usize, String)> {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut words: Vec<(usize, String)> = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match first {
                _ if part_of_name(first) => rest.find(|c| !part_of_name(c)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                _ => first.len_utf8(),
            };
            words.push((number + 1, rest[..length].to_owned()));
            rest = rest[length..].trim_start();
        }
    }
    words
}

/// Writes `super::super::x` as `crate::x` where it climbs to the root.
fn from_the_root(words: Vec<(usize, String)>, path: &str) -> Vec<(usize, String)> {
    let depth = path.split('/').filter(|part| *part != "mod.rs").count();
    let mut climbed = 0;
    let mut out: Vec<(usize, String)> = Vec::new();
    for (line, word) in words {
        climbed = match word.as_str() {
            "super" => climbed + 1,
            "::" if climbed > 0 => climbed,
            _ => 0,
        };
        if climbed == depth && word == "super" {
            out.truncate(out.len() - 2 * (depth - 1));
            out.push((line, "crate".to_owned()));
        } else {
            out.push((line, word));
        }
    }
    out
}

/// Every Rust file below a folder of the repository, by its path from the top. None when there is no such folder.
fn sources(folder: &str) -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![top.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(top).unwrap().to_str().unwrap().replace('\\', "/");
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}
