//! The exact text of every kind of mistake.

use proptest::prelude::*;

use super::*;

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
