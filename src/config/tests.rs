//! Tests of the configuration: the defaults, the overlay, and what each key means.

mod mistakes;
mod notices;
mod upstream;

use super::*;

fn load(yaml: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("polygate.yaml");
    std::fs::write(&file, yaml).unwrap();
    Config::load(Some(&file), env.iter().map(|(name, text)| (name.to_string(), text.to_string()))).map_err(|errors| {
        let dir = format!("{}/", dir.path().display());
        ConfigErrors { mistakes: errors.mistakes.iter().map(|line| line.replace(&dir, "")).collect() }
    })
}

fn loaded(yaml: &str) -> Config {
    load(yaml, &[]).unwrap()
}

/// The whole text of what is wrong with a file and an environment.
fn wrong(yaml: &str, env: &[(&str, &str)]) -> String {
    load(yaml, env).unwrap_err().to_string()
}

fn rate(requests_a_minute: u32, burst: u32) -> Rate {
    Rate { requests_a_minute: requests_a_minute.try_into().unwrap(), burst: burst.try_into().unwrap() }
}

fn plan(name: &str, credits_a_month: u64, bonus_credits: u64, rate: Option<Rate>) -> Arc<Plan> {
    Arc::new(Plan { name: name.to_owned(), credits_a_month, bonus_credits, rate })
}

#[test]
fn the_defaults_are_these() {
    let free = plan("free", 1_000, 500, Some(rate(60, 60)));
    let wanted = Config {
        listen: vec!["127.0.0.1:8080".parse().unwrap()],
        tls: None,
        http2_prior_knowledge: false,
        private_listen: None,
        data: "polygate-data".into(),
        durability: Durability::Process,
        trusted_proxies: Vec::new(),
        plans: vec![
            free.clone(),
            plan("starter", 200_000, 0, None),
            plan("pro", 1_000_000, 0, None),
            plan("mega", 4_000_000, 0, None),
        ],
        default_plan: free,
        open: rate(60, 60),
        apis: Apis {
            totpgenerator: Api { enabled: true, access: Access::Key, cost: 1 },
            key2otp: Api { enabled: true, access: Access::Open, cost: 1 },
            analytics: true,
            upstreams: Vec::new(),
        },
        exhausted_status: 403,
        not_acceptable: NotAcceptable::Refuse,
        notices: Notices { webhook: None, email: None },
        logs: Logs { format: LogFormat::Human, level: Level::Info },
        traces: None,
        limits: Limits {
            body_bytes: 16_384,
            header_bytes: 16_384,
            header_count: 100,
            handshake_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_secs(10),
            body_read_timeout: Duration::from_secs(10),
            body_bytes_a_second: 500,
            request_timeout: Duration::from_secs(30),
            answer_write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            connections: 10_000,
            connections_an_address: 256,
            requests: 5_000,
            http2_streams: 100,
            http2_resets: 20,
            http2_idle_frames: 1_000,
            drain_timeout: Duration::from_secs(10),
            open_addresses: 100_000,
        },
        retention: Retention { usage_days: 400, deliveries_days: 90 },
    };
    assert_eq!(Config::load(None, std::iter::empty()).unwrap(), wanted);
    assert_eq!(Config::default(), wanted);
    assert_eq!(loaded(DEFAULT_YAML), wanted, "the printed default, used as a file, changes nothing");
    assert_eq!(loaded(""), wanted);
    assert_eq!(loaded("# nothing but a comment\nlimits:\napis:\n"), wanted, "blocks left empty change nothing");
}

#[test]
fn the_default_file_explains_every_key() {
    // A required key that the default file lacks is noted as missing by the test above; these two are optional.
    for line in ["#   bonus_credits ", "#   requests_a_minute ", "#   burst "] {
        assert!(DEFAULT_YAML.contains(line), "{line}");
    }
    let mut above = "";
    for line in DEFAULT_YAML.lines() {
        let top_level = line.chars().next().is_some_and(|c| c.is_ascii_lowercase());
        let key = line.trim().split(':').next().unwrap();
        let inside = DEFAULT_YAML.contains(&format!("#   {key} ")) || above.trim().starts_with('#');
        if !line.trim().starts_with('#') && !top_level && line.contains(": ") {
            assert!(inside, "no comment for {key}");
        }
        above = line;
    }
}

#[test]
fn a_file_names_what_it_changes() {
    let config = loaded(
        "listen: '[::1]:0'\n\
         trusted_proxies: [10.0.0.0/8, '2001:db8::/32', 192.0.2.7]\n\
         default_plan: team-2\n\
         plans:\n  team-2: { credits_a_month: 7, requests_a_minute: 120, burst: 5 }\n  2026: { credits_a_month: 0 }\n\
         open: { requests_a_minute: 10 }\n\
         apis: { key2otp: { access: key, cost: 0 }, analytics: { enabled: false } }\n\
         answers: { exhausted_status: 402, not_acceptable: send-json }\n\
         limits: { body_bytes: 32768, drain_timeout_s: 0 }\n\
         retention: { usage_days: 3650 }\n",
    );
    let team = plan("team-2", 7, 0, Some(rate(120, 5)));
    let wanted = Config {
        listen: vec!["[::1]:0".parse().unwrap()],
        trusted_proxies: ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"].map(|net| net.parse().unwrap()).to_vec(),
        default_plan: team.clone(),
        plans: vec![team, plan("2026", 0, 0, None)],
        open: rate(10, 10),
        apis: Apis {
            key2otp: Api { enabled: true, access: Access::Key, cost: 0 },
            analytics: false,
            ..Config::default().apis
        },
        exhausted_status: 402,
        not_acceptable: NotAcceptable::SendJson,
        limits: Limits { body_bytes: 32_768, drain_timeout: Duration::ZERO, ..Config::default().limits },
        retention: Retention { usage_days: 3_650, ..Config::default().retention },
        ..Config::default()
    };
    assert_eq!(config, wanted);
}

#[test]
fn the_environment_wins() {
    let env = [
        ("POLYGATE_CONFIG", "polygate.yaml"),
        ("POLYGATE_LISTEN", "0.0.0.0:80"),
        ("POLYGATE_DATA", "2026"),
        ("POLYGATE_TRUSTED_PROXIES", "[192.0.2.7, 2001:db8::/32]"),
        ("POLYGATE_PLANS__FREE__BURST", "5"),
        ("POLYGATE_PLANS__GOLD__CREDITS_A_MONTH", "9"),
        ("POLYGATE_APIS__KEY2OTP__ENABLED", "false"),
        ("POLYGATE_LIMITS__BODY_BYTES", "32768"),
        ("HOME", "/home/somebody"),
    ];
    let config = load("listen: 127.0.0.1:1\nlimits: { body_bytes: 1, header_count: 50 }", &env).unwrap();
    let free = plan("free", 1_000, 500, Some(rate(60, 5)));
    let mut plans = Config::default().plans;
    plans[0] = free.clone();
    plans.push(plan("gold", 9, 0, None));
    let mut wanted = Config {
        listen: vec!["0.0.0.0:80".parse().unwrap()],
        data: "2026".into(),
        trusted_proxies: vec!["192.0.2.7/32".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        plans,
        default_plan: free,
        limits: Limits { body_bytes: 32_768, header_count: 50, ..Config::default().limits },
        ..Config::default()
    };
    wanted.apis.key2otp.enabled = false;
    assert_eq!(config, wanted);
}

#[test]
fn logs_and_the_private_listener_are_set_by_words() {
    let config = loaded("private_listen: '[::1]:9090'\nlogs: { format: json, level: warn }");
    assert_eq!(config.private_listen, Some("[::1]:9090".parse().unwrap()));
    assert_eq!(config.logs, Logs { format: LogFormat::Json, level: Level::Warn });
    let found = wrong("private_listen: 9090\nlogs: { format: xml, level: debug, file: x }", &[]);
    let wanted = "the configuration has mistakes:\n  \
        private_listen: must be an address and port, like 127.0.0.1:9090, or empty, not a whole number\n  \
        logs.format: must be human or json\n  logs.level: must be info or warn\n  logs.file: unknown key";
    assert_eq!(found, wanted);
}

#[test]
fn traces_go_to_an_endpoint() {
    let config = loaded(
        "traces: { endpoint: 'https://collector.example/v1/traces', headers: ['authorization: Bearer a:b', 'x-t:1'] }",
    );
    let traces = config.traces.unwrap();
    assert_eq!(traces.endpoint, Endpoint::parse("https://collector.example/v1/traces").unwrap());
    let headers = [("authorization", "Bearer a:b"), ("x-t", "1")];
    assert_eq!(traces.headers, headers.map(|(name, value)| (name.to_owned(), Hidden::new(value.to_owned()))));
    assert_eq!(traces.sample_ratio, 0.1);
    assert!(!format!("{traces:?}").contains("Bearer"));

    let ratio = |text: &str| loaded(&format!("traces: {{ endpoint: 'http://a', sample_ratio: {text} }}"));
    for (text, wanted) in [("0", 0.0), ("1", 1.0), ("0.001", 0.001), ("1e-3", 0.001), ("1.0", 1.0)] {
        assert_eq!(ratio(text).traces.unwrap().sample_ratio, wanted, "{text}");
    }
    let env = [
        ("POLYGATE_TRACES__ENDPOINT", "http://a"),
        ("POLYGATE_TRACES__HEADERS", "['a: b']"),
        ("POLYGATE_TRACES__SAMPLE_RATIO", "0.5"),
    ];
    let traces = load("", &env).unwrap().traces.unwrap();
    assert_eq!((traces.headers.len(), traces.sample_ratio), (1, 0.5));

    let wrong = wrong(
        "traces: { endpoint: hunter2, sample_ratio: 1.5, headers: ['hunter2', 'a b: hunter2', \"a: hunter2\\n\\x01\"] }",
        &[],
    );
    let header = "must be a header line, like 'Authorization: Bearer token', of at most 4096 bytes";
    for line in [
        "traces.sample_ratio: must be a number from 0 to 1".to_owned(),
        format!("traces.headers[0]: {header}"),
        format!("traces.headers[1]: {header}"),
        format!("traces.headers[2]: {header}"),
    ] {
        assert!(wrong.contains(&line), "{line} is missing in {wrong}");
    }
    assert!(!wrong.contains("hunter2"), "{wrong}");
    for ratio in ["-0.1", "2", ".nan", "'0.5'", "~"] {
        let told = self::wrong(&format!("traces: {{ sample_ratio: {ratio} }}"), &[]);
        assert!(told.contains("traces.sample_ratio: must be a number from 0 to 1"), "{told}");
    }
}

#[test]
fn one_address_or_several_are_listened_to() {
    let addresses = |text: &[&str]| text.iter().map(|address| address.parse().unwrap()).collect::<Vec<SocketAddr>>();
    for (yaml, wanted) in [
        ("listen: '[::1]:80'", &["[::1]:80"][..]),
        ("listen: [127.0.0.1:80]", &["127.0.0.1:80"]),
        ("listen:\n- 0.0.0.0:443\n- '[::]:443'", &["0.0.0.0:443", "[::]:443"]),
    ] {
        assert_eq!(loaded(yaml).listen, addresses(wanted), "{yaml}");
    }
    for (text, wanted) in [
        ("[::1]:80", &["[::1]:80"][..]),
        ("127.0.0.1:80", &["127.0.0.1:80"]),
        ("['[::1]:80', 127.0.0.1:80]", &["[::1]:80", "127.0.0.1:80"]),
    ] {
        assert_eq!(load("", &[("POLYGATE_LISTEN", text)]).unwrap().listen, addresses(wanted), "{text}");
    }
    let mistakes = "the configuration has mistakes:\n  ";
    assert_eq!(wrong("listen: []", &[]), format!("{mistakes}listen: must name at least one address"));
    let one = "must be an address and port, like 127.0.0.1:8080 or [::1]:8080";
    assert_eq!(wrong("listen: [127.0.0.1:80, localhost]", &[]), format!("{mistakes}listen[1]: {one}"));
    assert_eq!(
        wrong("", &[("POLYGATE_LISTEN", "[5]")]),
        format!("{mistakes}POLYGATE_LISTEN[0]: {one}, not a whole number")
    );
}

#[test]
fn tls_wants_both_files() {
    let tls = Tls { certificate: "cert.pem".into(), key: "key.pem".into() };
    assert_eq!(loaded("tls: { certificate: cert.pem, key: key.pem }").tls, Some(tls));
    assert_eq!(loaded("tls: { certificate: '', key: '' }").tls, None);
    let mistakes = "the configuration has mistakes:\n  tls.";
    assert_eq!(wrong("tls: { certificate: cert.pem }", &[]), format!("{mistakes}key: is missing"));
    assert_eq!(wrong("tls: { key: key.pem }", &[]), format!("{mistakes}certificate: is missing"));
    let text = "must be the path of a PEM file, not a whole number";
    assert_eq!(wrong("tls: { certificate: 5, key: key.pem }", &[]), format!("{mistakes}certificate: {text}"));
}

#[test]
fn the_readme_shows_what_is_so() {
    let readme = include_str!("../../README.md");
    let (_, example) = readme.split_once("```yaml\n# polygate.yaml\n").unwrap();
    let config = loaded(example.split("```").next().unwrap());
    assert_eq!(config.plans[1], plan("team", 500_000, 0, None));

    let yaml = "plans: { free: { credits_a_month: 1, requests_a_minute: 60, burst: many } }\nlimits: { body_byte: 1 }";
    let shown = wrong(yaml, &[("POLYGATE_LISTEN", "8080")]);
    assert!(readme.contains(&format!("```\n{shown}\n```")), "{shown}");
}
