//! Every file in `fixtures/calls/`: a request as a client sends it, and the whole answer.
//!
//! Above the request stand directives: `@plan NAME` (free, slow: one request a minute, spent: no credits, mega),
//! `@scope NAME` (the key's only scope), `@times N` (send it N times, the last answer counts), `@time SECONDS` and
//! `@after NAME…` (other golden calls that are sent before, and folded into the database).
//! `$key` stands for the key. With `POLYGATE_BLESS=1` the answers are written anew; read the difference before keeping it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{App, Setup};

/// The seeds' own moment: 2025-12-16T22:30:35Z.
const NOW: u64 = 1_765_924_235;
const ANSWER: &str = "\n=== answer\n";

pub struct Golden {
    pub name: String,
    pub setup: Setup,
    pub after: Vec<String>,
    pub times: usize,
    pub request: String,
    pub answer: String,
}

pub fn all() -> Vec<(PathBuf, Golden)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/calls");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 50, "the golden calls are missing");
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

fn read(path: &Path) -> Golden {
    let text = fs::read_to_string(path).unwrap();
    let (asked, answer) = text.split_once(ANSWER).unwrap_or((text.trim_end(), ""));
    let mut setup = Setup { now_unix_s: NOW, ..Setup::default() };
    let (mut times, mut after, mut request) = (1, Vec::new(), asked);
    while let Some(rest) = request.strip_prefix('@') {
        let (line, rest) = rest.split_once('\n').unwrap();
        let (name, value) = line.split_once(' ').unwrap();
        match name {
            "plan" => setup.plan = value.to_owned(),
            "scope" => setup.bounds.scopes = Some(vec![value.to_owned()]),
            "times" => times = value.parse().unwrap(),
            "after" => after.extend(value.split_whitespace().map(str::to_owned)),
            "time" => setup.now_unix_s = value.parse().unwrap(),
            other => panic!("{}: unknown directive {other}", path.display()),
        }
        request = rest;
    }
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    Golden { name, setup, after, times, request: request.to_owned(), answer: answer.to_owned() }
}

#[tokio::test]
async fn every_call_is_answered_to_the_byte() {
    #[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the tests")]
    let bless = std::env::var_os("POLYGATE_BLESS").is_some();
    let mut wrong = Vec::new();
    let goldens = all();
    for (path, golden) in &goldens {
        let app = App::new(&golden.setup);
        for name in &golden.after {
            let (_, before) = goldens.iter().find(|(_, other)| other.name == *name).unwrap();
            app.send(&before.request).await;
        }
        app.fold();
        let mut got = String::new();
        for _ in 0..golden.times {
            got = app.send(&golden.request).await.to_string();
        }
        if bless {
            let text = fs::read_to_string(path).unwrap();
            let asked = text.split_once(ANSWER).map_or(text.trim_end(), |(asked, _)| asked);
            fs::write(path, format!("{asked}{ANSWER}{got}")).unwrap();
        } else if got != golden.answer {
            wrong.push(format!("{}\n--- want\n{}\n--- got\n{got}", golden.name, golden.answer));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
