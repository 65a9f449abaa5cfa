//! Tests of the configuration: the defaults, the overlay, and the exact text of every kind of mistake.

mod upstream;

use proptest::prelude::*;

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
fn all_mistakes_are_told_at_once() {
    let yaml = "\
listen: localhost:8080
data: ''
trusted_proxies: [10.0.0.0/33, 5, 192.0.2.0/24]
default_plan: fre
plans:
  free: { credits_a_month: 1000, requests_a_minute: 60, burst: 'many' }
  Gold: { credits_a_month: 1 }
  slow: { credits_a_month: -1, requests_a_minute: 0 }
  odd: { burst: 5, bonus: 1 }
  more: { credits_a_month: 1, requests_a_minute: 10, burst: 11 }
  none:
  free: { credits_a_month: 2 }
open: { requests_a_minute: 1.5 }
apis:
  totpgenerator: { enabled: 'yes', access: everybody }
  key2otp: { cost: }
  analytics: { enabled: 1, cost: 0 }
  totp: {}
answers: { exhausted_status: 404, not_acceptable: [] }
limits: { body_byte: 5, body_bytes: 99999999999999999999999999999999999999999999, header_bytes: 100, connections: ~ }
retention: { usage_days: 0, deliveries_days: 3651, days: 5 }
limit: {}
listen: 127.0.0.1:1
";
    let wanted = "the configuration has mistakes:
  listen: is given 2 times
  listen: must be an address and port, like 127.0.0.1:8080 or [::1]:8080
  data: must be the path of a directory
  trusted_proxies[0]: must be a network or address, like 192.0.2.0/24 or 2001:db8::1
  trusted_proxies[1]: must be a network or address, like 192.0.2.0/24 or 2001:db8::1, not a whole number
  plans.free: is given 2 times
  plans.free.burst: must be a whole number from 1 to 1000000, not a string
  plans.Gold: a plan's name has 1 to 32 characters, each a to z, 0 to 9 or hyphen
  plans.slow.credits_a_month: must be a whole number from 0 to 1000000000000
  plans.slow.requests_a_minute: must be a whole number from 1 to 1000000
  plans.odd.credits_a_month: is missing
  plans.odd.burst: means nothing without requests_a_minute
  plans.odd.bonus: unknown key
  plans.more.burst: must not be above requests_a_minute
  plans.none: must be a block of keys, not nothing
  open.requests_a_minute: must be a whole number from 1 to 1000000, not a fraction
  apis.totpgenerator.enabled: must be true or false, not a string
  apis.totpgenerator.access: must be key or open
  apis.key2otp.cost: must be a whole number from 0 to 1000000, not nothing
  apis.analytics.enabled: must be true or false, not a whole number
  apis.analytics.cost: unknown key
  apis.totp.upstream: is missing
  answers.exhausted_status: must be 402, 403 or 429
  answers.not_acceptable: must be refuse or send-json, not a list
  limits.body_bytes: must be a whole number from 1 to 16777216, not a fraction
  limits.header_bytes: must be a whole number from 8192 to 1048576
  limits.connections: must be a whole number from 1 to 1000000, not nothing
  limits.body_byte: unknown key; did you mean body_bytes?
  retention.usage_days: must be a whole number from 1 to 3650
  retention.deliveries_days: must be a whole number from 1 to 3650
  retention.days: unknown key
  limit: unknown key; did you mean limits?";
    assert_eq!(wrong(yaml, &[]), wanted);
}

#[test]
fn mistakes_of_the_environment_name_the_variable() {
    let env = [
        ("POLYGATE_LISTEN", ""),
        ("POLYGATE_LIMITS", "{ body_bytes: 5 }"),
        ("POLYGATE_LIMTS__BODY_BYTES", "5"),
        ("POLYGATE_APIS__KEY2OTP__COST", "one"),
        ("POLYGATE_APIS__KEY2OTP__ENABLE", "true"),
        ("POLYGATE_TRUSTED_PROXIES", "['::1', localhost]"),
        ("POLYGATE_OPEN__BURST", "[1"),
        ("POLYGATE_open__burst", "1"),
        ("POLYGATE_OPEN__", "1"),
        ("POLYGATE_OPEN__BURST__A__B__C", "1"),
        ("POLYGATE_LISTEN__X", "1"),
        ("POLYGATE_OPEN__REQUESTS_A_MINUTE__X", "1"),
        ("POLYGATE_TRUSTED_PROXIES__0", "1"),
        ("POLYGATE_PLANS__FREE__BURST__X", "1"),
        ("POLYGATE_PLANS__FREE__CREDITS_A_MONTH", "-1"),
        ("POLYGATE_PLANS__FREE__CREDITS_A_MONTH__X", "1"),
        ("POLYGATE_KEY", "pg-secret"),
    ];
    let wanted = "the configuration has mistakes:
  POLYGATE_OPEN__: unknown variable
  POLYGATE_OPEN__BURST__A__B__C: unknown variable
  POLYGATE_open__burst: unknown variable
  POLYGATE_LISTEN__X: unknown variable
  POLYGATE_LISTEN: must be an address and port, like 127.0.0.1:8080 or [::1]:8080
  POLYGATE_TRUSTED_PROXIES__0: unknown variable
  POLYGATE_TRUSTED_PROXIES[1]: must be a network or address, like 192.0.2.0/24 or 2001:db8::1
  POLYGATE_PLANS__FREE__CREDITS_A_MONTH__X: unknown variable
  POLYGATE_PLANS__FREE__CREDITS_A_MONTH: must be a whole number from 0 to 1000000000000
  POLYGATE_PLANS__FREE__BURST__X: unknown variable
  POLYGATE_OPEN__REQUESTS_A_MINUTE__X: unknown variable
  POLYGATE_OPEN__BURST: must be a whole number from 1 to 1000000, not a string
  POLYGATE_APIS__KEY2OTP__COST: must be a whole number from 0 to 1000000, not a string
  POLYGATE_APIS__KEY2OTP__ENABLE: unknown variable; did you mean POLYGATE_APIS__KEY2OTP__ENABLED?
  POLYGATE_LIMITS: must be a block of keys, not a string
  POLYGATE_KEY: unknown variable
  POLYGATE_LIMTS__BODY_BYTES: unknown variable; did you mean POLYGATE_LIMITS__BODY_BYTES?";
    assert_eq!(wrong("", &env), wanted);
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn notices_go_where_the_file_says() {
    let config = loaded(&format!(
        "notices:\n  \
         webhook: {{ url: 'https://example.org/path?x=1', secret: {SECRET} }}\n  \
         email: {{ server: mail.example.org, port: 465, tls: implicit, username: ann, password: hunter2, \
         from: Polygate <no-reply@example.org> }}\n"
    ));
    let wanted = Notices {
        webhook: Some(Webhook {
            url: Endpoint::parse("https://example.org/path?x=1").unwrap(),
            secret: SigningSecret::parse(SECRET).unwrap(),
        }),
        email: Some(Email {
            server: "mail.example.org".into(),
            port: 465,
            tls: MailTls::Implicit,
            login: Some(("ann".into(), Hidden::new("hunter2".into()))),
            from: "Polygate <no-reply@example.org>".parse().unwrap(),
        }),
    };
    assert_eq!(config.notices, wanted);
    let shown = format!("{config:?}");
    for hidden in ["hunter2", "path", "MfKQ9r8G"] {
        assert!(!shown.contains(hidden), "{hidden} {shown}");
    }
}

#[test]
fn secrets_of_notices_need_not_be_in_the_file() {
    let env = [("POLYGATE_NOTICES__WEBHOOK__SECRET", SECRET), ("POLYGATE_NOTICES__EMAIL__PASSWORD", "12345")];
    let yaml = "notices: { webhook: { url: http://127.0.0.1:1 }, \
                email: { server: '::1', tls: none, username: ann, from: a@example.org } }";
    let notices = load(yaml, &env).unwrap().notices;
    assert_eq!(notices.webhook.unwrap().secret, SigningSecret::parse(SECRET).unwrap());
    let email = notices.email.unwrap();
    assert_eq!((email.port, email.tls), (587, MailTls::None));
    assert_eq!(email.login, Some(("ann".into(), Hidden::new("12345".into()))));
    // Empty is off, by a variable too.
    let env = [("POLYGATE_NOTICES__WEBHOOK__URL", ""), ("POLYGATE_NOTICES__WEBHOOK__SECRET", "")];
    assert_eq!(load(&format!("notices: {{ webhook: {{ secret: {SECRET} }} }}"), &env).unwrap(), Config::default());
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
fn notices_given_by_half_name_what_is_missing() {
    let cases: &[(&str, &[&str])] = &[
        ("webhook: { url: https://example.org }", &["webhook.secret: is missing"]),
        (
            "webhook: { secret: whsec_hunter2 }",
            &["webhook.url: is missing", "webhook.secret: must be whsec_ and 24 to 64 bytes in base64"],
        ),
        (
            "webhook: { url: 'https://hunter2@example.org' }",
            &["webhook.url: must be an http or https address without a user name", "webhook.secret: is missing"],
        ),
        (
            "webhook: { url: ~ }",
            &[
                "webhook.url: must be an http or https address without a user name, not nothing",
                "webhook.secret: is missing",
            ],
        ),
        ("email: { server: mail.example.org }", &["email.from: is missing"]),
        ("email: { from: a@example.org, username: ann }", &["email.server: is missing", "email.password: is missing"]),
        (
            "email: { password: 12345 }",
            &[
                "email.server: is missing",
                "email.username: is missing",
                "email.password: must be a text of at most 253 bytes, not a whole number",
                "email.from: is missing",
            ],
        ),
        (
            "email: { server: 'hunter2:25', from: hunter2, port: 0, tls: ssl }",
            &[
                "email.port: must be a whole number from 1 to 65535",
                "email.tls: must be starttls, implicit or none",
                "email.server: must be the name or IP address of a host",
                "email.from: must be an e-mail address, with or without a name",
            ],
        ),
        ("email: { host: mail.example.org }", &["email.host: unknown key"]),
    ];
    for (yaml, lines) in cases {
        let wanted: String = lines.iter().map(|line| format!("\n  notices.{line}")).collect();
        let found = wrong(&format!("notices: {{ {yaml} }}"), &[]);
        assert_eq!(found, format!("the configuration has mistakes:{wanted}"), "{yaml}");
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
fn files_that_are_not_ours() {
    let lines = |count| (0..count).map(|n| format!("k{n}: 1\n")).collect::<String>();
    let bomb = format!("data: &a {}\nlisten: [{}]", "x".repeat(10_000), vec!["*a"; 1_000].join(", "));
    let cases: &[(&str, &str)] = &[
        ("just text", "the file: must be a block of keys, not a string"),
        ("[1, 2]", "the file: must be a block of keys, not a list"),
        ("plans: {}", "plans: must name from 1 to 1000 plans, not 0"),
        ("plans:", "plans: must be a block of keys, not nothing"),
        ("plans: { other: { credits_a_month: 1 } }", "default_plan: must be the name of a plan"),
        ("default_plan: [free]", "default_plan: must be the name of a plan, not a list"),
        ("limits: 5", "limits: must be a block of keys, not a whole number"),
        ("\"a\\nb\\e[31m\": 1", "a\\nb\\u{1b}[31m: unknown key"),
        ("? [1]\n: 2", "polygate.yaml: is not readable YAML: a key must be a name, not a list"),
        (
            "listen: !secret x",
            "polygate.yaml: is not readable YAML: listen: tags (!name) are not used here at line 1 column 9",
        ),
        (
            "limits: { body_bytes: 5",
            "polygate.yaml: is not readable YAML: did not find expected ',' or '}' at line 2 column 1, while parsing a flow mapping at line 1 column 9",
        ),
        (
            "data: a\n---\ndata: b",
            "polygate.yaml: is not readable YAML: deserializing from YAML containing more than one document is not supported",
        ),
    ];
    for (yaml, wanted) in cases {
        assert_eq!(wrong(yaml, &[]), format!("the configuration has mistakes:\n  {wanted}"), "{yaml}");
    }
    assert!(wrong(&bomb, &[]).contains("its aliases unfold to too much"), "{}", wrong(&bomb, &[]));
    assert!(wrong(&lines(150), &[]).ends_with("\n  k99: unknown key\n  and 50 more"));
    assert!(wrong(&lines(2_001), &[]).contains("is not readable YAML: a block has over 2000 keys"));
    assert!(wrong(&"#".repeat(FILE_BYTES_MAX + 1), &[]).ends_with("polygate.yaml: is over 1048576 bytes"));
    let missing = Config::load(Some(Path::new("no/such/file")), std::iter::empty()).unwrap_err();
    assert!(missing.to_string().contains("no/such/file: cannot be read: "), "{missing}");
}

#[test]
fn no_mistake_shows_a_value() {
    let env = [("POLYGATE_LISTEN", "hunter2"), ("POLYGATE_DEFAULT_PLAN", "hunter2"), ("POLYGATE_HOST", "hunter2")];
    let yaml = "limits: hunter2\nplans: { free: { credits_a_month: hunter2 } }\napis: { key2otp: { access: hunter2 } }";
    assert!(!wrong(yaml, &env).contains("hunter2"), "{}", wrong(yaml, &env));
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

/// Documents that look enough like ours to get past the first checks.
fn any_yaml() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("limits"),
        Just("plans"),
        Just("free"),
        Just("apis"),
        Just("key2otp"),
        Just("cost"),
        Just("upstream"),
        Just("http://a"),
        Just("${HOME}"),
        Just("burst"),
        Just("listen"),
        Just("requests_a_minute"),
        Just("trusted_proxies"),
        Just("~"),
        Just("5"),
        Just("-1"),
        Just("1e9"),
        Just("&a"),
        Just("*a"),
        Just("<<"),
        Just(": "),
        Just("\n"),
        Just("  "),
        Just("- "),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(", "),
        Just("'"),
        Just("!x "),
        Just("\u{0}"),
        Just("é"),
    ];
    prop_oneof![proptest::collection::vec(word, 0..40).prop_map(|words| words.concat()), ".{0,80}"]
}

proptest! {
    #[test]
    fn nothing_panics(yaml in any_yaml(), name in "POLYGATE_[A-Z_]{0,20}", text in any_yaml()) {
        let env = [(name, text)].into_iter();
        let loaded = match Tree::parse(&yaml) {
            Ok(tree) => Config::resolve(tree, env),
            Err(error) => Err(vec![error.to_string()]),
        };
        if let Err(mistakes) = loaded {
            prop_assert!(!mistakes.is_empty());
        }
    }
}
