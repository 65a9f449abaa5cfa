//! Notices: webhook and mail.

use super::*;

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
