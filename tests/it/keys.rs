//! Keys, accounts, plans and configuration by the command line: the real program against a real data directory.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock as _;
use polygate::config::Config;
use polygate::pure::key::KeyHash;
use polygate::state::clock::Clock;
use polygate::state::keyring::{Keyring, watch};
use polygate::state::store::Store;
use serde_json::{Value, json};

use crate::program::{Desk, Server};

#[test]
fn create_prints_the_bare_key_and_makes_the_account() {
    let desk = Desk::new();
    let key = desk.create("");
    assert_eq!(key.len(), 43);
    assert!(KeyHash::of(key.as_bytes()).is_some());
    let accounts = desk.json("accounts list");
    assert_eq!(accounts[0]["email"], "admin@localhost");
    assert_eq!(accounts[0]["plan"], "free");
    assert_eq!(accounts[0]["bonus_credits"], 500);
    desk.create("--account Ann@example.org --plan pro");
    desk.create("--account ann@Example.org");
    let accounts = desk.json("accounts list");
    assert_eq!((&accounts[1]["email"], &accounts[1]["plan"]), (&json!("ann@example.org"), &json!("pro")));
    assert_eq!(accounts.as_array().unwrap().len(), 2);
    assert_eq!(desk.json("keys list --account ann@example.org").as_array().unwrap().len(), 2);
}

#[test]
fn create_as_json_tells_all_and_lists_never_the_key() {
    let desk = Desk::new();
    let made = desk.json(
        "keys create --name office --expires 2099-12-31 --scope totpgenerator --scope key2otp \
         --network 192.0.2.77/24 --network ::1 --origin HTTPS://App.example.com:443/",
    );
    let key = made["key"].as_str().unwrap();
    let mut wanted = json!({
        "key": key,
        "id": 1,
        "account": "admin@localhost",
        "plan": "free",
        "prefix": &key[..9],
        "last_four": &key[39..],
        "name": "office",
        "scopes": ["totpgenerator", "key2otp"],
        "networks": ["192.0.2.0/24", "::1/128"],
        "origins": ["https://app.example.com"],
        "created_at": made["created_at"],
        "expires_at": "2099-12-31T00:00:00Z",
        "revoked_at": null,
        "replaced_by": null,
        "last_used_at": null,
    });
    assert_eq!(made, wanted);
    wanted.as_object_mut().unwrap().remove("key");
    assert_eq!(desk.json("keys list"), json!([wanted]));
    let list = desk.ok("keys list");
    assert!(!list.contains(key) && list.contains(&format!("{}…{}", &key[..9], &key[39..])), "{list}");
}

#[test]
fn lists_are_tables() {
    let desk = Desk::new();
    let key = desk.create("--name office --scope totpgenerator");
    let short = format!("{}…{}", &key[..9], &key[39..]);
    assert_eq!(
        desk.ok("keys list"),
        format!(
            "ID  KEY             ACCOUNT          STATE  EXPIRES  LAST USED  NAME    BOUND TO\n\
             1   {short}  admin@localhost  good   never    never      office  totpgenerator\n"
        )
    );
    let plans = "NAME     CREDITS A MONTH  BONUS  REQUESTS A MINUTE  BURST  DEFAULT OF\n\
                 free     1000             500    60                 60     new accounts\n\
                 starter  200000           0      unthrottled        -\n\
                 pro      1000000          0      unthrottled        -\n\
                 mega     4000000          0      unthrottled        -\n";
    assert_eq!(desk.ok("plans list"), plans);
    let free = json!({
        "name": "free", "credits_a_month": 1_000, "bonus_credits": 500,
        "requests_a_minute": 60, "burst": 60, "default": true,
    });
    assert_eq!(desk.json("plans list")[0], free);
}

#[test]
fn revoke_and_rotate_by_number_or_prefix() {
    let desk = Desk::new();
    let first = desk.create("--name office");
    let rotated = desk.ok(&format!("keys rotate {} --grace 1h", &first[..9]));
    assert!(KeyHash::of(rotated.trim_end().as_bytes()).is_some());
    let keys = desk.json("keys list");
    assert_eq!((&keys[0]["replaced_by"], &keys[1]["name"]), (&json!(2), &json!("office")));
    assert_ne!(keys[0]["expires_at"], Value::Null);
    assert_eq!(keys[1]["expires_at"], Value::Null);
    assert!(desk.ok("keys list").contains("replaced by 2"));

    let said = desk.ok("keys revoke 2");
    assert_eq!(said, format!("Key 2 ({}…{}) of admin@localhost is revoked.\n", &rotated[..9], &rotated[39..43]));
    assert_ne!(desk.json("keys list")[1]["revoked_at"], Value::Null);
    assert_eq!(desk.fails("keys revoke 2"), (1, "polygate: key 2 has been revoked or has expired\n".to_owned()));
    assert_eq!(desk.fails("keys rotate 1"), (1, "polygate: key 1 has already been replaced by key 2\n".to_owned()));
    assert_eq!(desk.fails("keys revoke 9"), (1, "polygate: there is no key 9\n".to_owned()));
    // A whole key is found, and not repeated when it is not.
    let wrong = format!("{}{}", &first[..42], if first.ends_with('0') { '1' } else { '0' });
    let (code, error) = desk.fails(&format!("keys revoke {wrong}"));
    assert_eq!((code, error), (1, format!("polygate: there is no key {}…\n", &first[..9])));
    let said = desk.ok(&format!("keys revoke {first}"));
    assert_eq!(said, format!("Key 1 ({}…{}) of admin@localhost is revoked.\n", &first[..9], &first[39..]));
    // As the list prints it.
    let third = desk.create("");
    desk.ok(&format!("keys revoke {}…{}", &third[..9], &third[39..]));
    // A few characters could be anybody's.
    let (code, error) = desk.fails("keys revoke pg-1");
    assert_eq!(
        (code, error.as_str()),
        (
            1,
            "polygate: pg-1 is too short: a key goes by its number, by at least its first 9 characters or by all of it\n"
        )
    );
    for command in ["keys revoke --help", "keys rotate --help"] {
        let help = desk.ok(command);
        assert!(help.contains("number") && help.contains("first 9 characters"), "{help}");
    }
}

#[test]
fn accounts_are_made_moved_suspended_and_resumed() {
    let desk = Desk::new();
    assert_eq!(desk.ok("accounts create a@example.org"), "Account a@example.org is on plan free.\n");
    assert_eq!(desk.ok("accounts set-plan A@example.org mega"), "Account a@example.org is on plan mega.\n");
    assert_eq!(desk.ok("accounts suspend a@example.org"), "Account a@example.org is on plan mega, suspended.\n");
    assert_eq!(desk.json("accounts resume a@example.org")["suspended"], false);
    let list = desk.ok("accounts list");
    assert!(
        list.starts_with("ID  EMAIL          PLAN  STATE  SIGNED UP\n1   a@example.org  mega  good   20"),
        "{list}"
    );
    for (line, error) in [
        ("accounts create a@example.org", "an account with the address a@example.org already exists"),
        ("accounts create nobody", "`nobody` is no e-mail address"),
        (
            "accounts set-plan a@example.org gold",
            "there is no plan `gold`; the configuration defines free, starter, pro, mega",
        ),
        ("accounts set-plan b@example.org pro", "there is no account with the address b@example.org"),
        ("keys list --account b@example.org", "there is no account with the address b@example.org"),
        (
            "keys create --account a@example.org --plan pro",
            "account a@example.org is on plan mega; `polygate accounts set-plan` changes that",
        ),
        ("keys create --expires 2001-01-01", "the expiry lies in the past"),
    ] {
        assert_eq!(desk.fails(line), (1, format!("polygate: {error}\n")), "{line}");
    }
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let desk = Desk::new();
    for (line, word) in [
        ("", "Usage"),
        ("keys", "Usage"),
        ("keys make", "make"),
        ("keys create --expires tomorrow", "30d"),
        ("keys create --network 192.0.2.0/99", "192.0.2.0/24"),
        ("keys create --origin example.com", "https://app.example.com"),
        ("keys rotate 1 --grace soon", "90s"),
        ("keys revoke", "KEY"),
        ("serve --listen localhost:8080", "must be an address and port, like 127.0.0.1:8080 or [::1]:8080"),
        ("completions smalltalk", "bash"),
    ] {
        let (code, error) = desk.fails(line);
        assert!(code == 2 && error.contains(word), "{line}: {code} {error}");
    }
    let (code, error) = desk.fails("keys create --scope nope");
    let wanted = "there is no API `nope`; the configuration defines totpgenerator, key2otp, analytics";
    assert!(code == 1 && error.contains(wanted), "{code} {error}");
    assert!(!desk.data().exists());
    for line in ["--help", "keys --help", "keys create --help", "--version", "help accounts set-plan"] {
        assert!(desk.ok(line).contains("polygate"), "{line}");
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(desk.ok(&format!("completions {shell}")).contains("set-plan"), "{shell}");
    }
}

#[test]
fn a_directory_named_by_mistake_is_not_made() {
    let desk = Desk::new();
    for line in
        ["keys list", "keys revoke 1", "keys rotate 1", "accounts list", "accounts suspend a@example.org", "usage"]
    {
        let (code, error) = desk.fails(line);
        assert!(code == 1 && error.starts_with("polygate: cannot open the data directory data: "), "{error}");
    }
    assert!(!desk.data().exists());
}

#[test]
fn the_configuration_is_printed_checked_and_followed() {
    let desk = Desk::new();
    let file = desk.directory.path().join("polygate.yaml");
    std::fs::write(&file, desk.ok("config print")).unwrap();
    assert_eq!(desk.ok("config check --config polygate.yaml"), "The configuration has no mistakes.\n");

    std::fs::write(&file, "plans: {gold: {credits_a_month: 5}}\ndefault_plan: gold\ndata: elsewhere\n").unwrap();
    assert_eq!(desk.json("plans list --config polygate.yaml")[0]["name"], "gold");
    let output = desk.command("keys create --json").env("POLYGATE_CONFIG", "polygate.yaml").output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["plan"], "gold");
    // The option wins over the file.
    assert!(desk.data().exists() && !desk.directory.path().join("elsewhere").exists());

    std::fs::write(&file, "colour: red\nlimits: {body_bytes: 0}\n").unwrap();
    let (code, error) = desk.fails("config check --config polygate.yaml");
    assert!(code == 1 && error.contains("colour") && error.contains("limits.body_bytes"), "{error}");
    assert_eq!(desk.fails("keys create --config polygate.yaml").0, 1);
    assert_eq!(desk.fails("config check --config missing.yaml").0, 1);
}

#[test]
fn no_key_is_in_the_files() {
    let desk = Desk::new();
    let keys = [desk.create(""), desk.create("--account a@example.org"), desk.ok("keys rotate 1")];
    // Held open, so that the write-ahead log is still there to be searched.
    let store = Store::open(&desk.data()).unwrap();
    let more = desk.create("");
    let files: Vec<PathBuf> = std::fs::read_dir(desk.data()).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    assert!(has(&files, b"admin@localhost"), "the search finds what is there");
    for key in keys.iter().chain([&more]) {
        let middle = &key.trim_end()[9..39];
        assert!(!has(&files, &middle.as_bytes()[..12]) && !has(&files, &middle.as_bytes()[18..]));
    }
    drop(store);
}

fn has(files: &[PathBuf], wanted: &[u8]) -> bool {
    let holds = |file: &Path| std::fs::read(file).unwrap().windows(wanted.len()).any(|bytes| bytes == wanted);
    files.iter().any(|file| holds(file))
}

#[test]
fn a_running_server_sees_commands_within_a_second() {
    let desk = Desk::new();
    desk.create("");
    let store = Store::open(&desk.data()).unwrap();
    let clock = Clock::system();
    let keyring = Arc::new(Keyring::load(&store, &Config::default().plans, clock.clone()).unwrap());
    let _watch = watch(Arc::clone(&keyring), store, Arc::new(|error| panic!("{error}"))).unwrap();
    let within_a_second = |seen: &dyn Fn() -> bool| {
        let end = clock.now() + Duration::from_secs(1);
        while !seen() {
            assert!(clock.now() < end, "not seen within a second");
            std::thread::yield_now();
        }
    };
    let hash = KeyHash::of(desk.create("--plan pro --account a@example.org").as_bytes()).unwrap();
    within_a_second(&|| keyring.find(&hash).is_some_and(|entry| entry.limiter.is_none()));
    desk.ok("accounts set-plan a@example.org free");
    within_a_second(&|| keyring.find(&hash).is_some_and(|entry| entry.limiter.is_some()));
    desk.ok("accounts suspend a@example.org");
    within_a_second(&|| keyring.find(&hash).is_some_and(|entry| entry.account.suspended));
    desk.ok("keys revoke 2");
    within_a_second(&|| keyring.find(&hash).is_none());
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let desk = Desk::new();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = desk.command("config print").stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("polygate: "));
}

#[test]
fn a_start_that_fails_makes_no_key() {
    let desk = Desk::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (code, error) = desk.fails(&format!("serve --listen {address}"));
    assert!(code == 1 && error.starts_with(&format!("polygate: cannot listen on {address}: ")), "{error}");
    assert!(!desk.data().exists());
}

#[test]
fn the_first_start_prints_a_key_and_a_call_to_try_and_the_second_does_not() {
    let desk = Desk::new();
    let mut server = Server::start(&desk, "");
    let key = server.printed("pg-").unwrap();
    assert!(KeyHash::of(key.as_bytes()).is_some());
    let call = server.printed("curl").unwrap();
    assert!(call.contains(&key) && call.ends_with(&format!(" {}/v1/totpgenerator", server.url)), "{call}");
    // What is printed last says that all is done: the key is good at once.
    assert_eq!(server.call(&key), 200);
    drop(server);
    assert_eq!(desk.json("keys list").as_array().unwrap().len(), 1);

    let mut server = Server::start(&desk, "");
    server.child.kill().unwrap();
    assert_eq!(server.printed("pg-"), None);
    assert_eq!(desk.json("keys list").as_array().unwrap().len(), 1);
}

#[test]
fn the_call_to_try_is_of_an_api_that_is_enabled() {
    let file = |apis: &str| {
        let desk = Desk::new();
        std::fs::write(desk.directory.path().join("polygate.yaml"), format!("apis: {{{apis}}}")).unwrap();
        desk
    };
    let desk = file("totpgenerator: {enabled: false}");
    let mut server = Server::start(&desk, "--config polygate.yaml");
    let call = server.printed("curl").unwrap();
    assert!(call.ends_with(&format!(" {}/v1/api/key2otp", server.url)), "{call}");

    let desk = file("totpgenerator: {enabled: false}, key2otp: {enabled: false}");
    let mut server = Server::start(&desk, "--config polygate.yaml");
    assert!(server.printed("pg-").is_some());
    server.child.kill().unwrap();
    assert_eq!(server.printed("curl"), None);
}

#[test]
fn a_plan_that_is_not_defined_keeps_nobody_else_from_being_served() {
    let desk = Desk::new();
    std::fs::write(desk.directory.path().join("polygate.yaml"), "plans: {free: {credits_a_month: 5}}").unwrap();
    let lost = [desk.create("--account a@example.org --plan mega"), desk.create("--account b@example.org --plan pro")];
    let good = desk.create("--account c@example.org");
    let mut server = Server::start(&desk, "--config polygate.yaml");
    assert_eq!((server.call(&good), server.call(&lost[0]), server.call(&lost[1])), (200, 401, 401));
    let told = BufReader::new(server.child.stderr.take().unwrap()).lines();
    let trouble = told.map(|line| line.unwrap().split_once(" warn polygate: ").map(|(_, told)| told.to_owned()));
    let told: Vec<String> = trouble.flatten().take(2).collect();
    for (line, account, plan) in [(&told[0], "a@example.org", "mega"), (&told[1], "b@example.org", "pro")] {
        let start = format!("account {account} has the plan `{plan}`, which the configuration does not define");
        assert!(line.starts_with(&start), "{line}");
    }
}

#[test]
fn a_start_that_fails_does_not_say_that_it_listens() {
    let desk = Desk::new();
    desk.create("");
    // The keys cannot be loaded: their table is another one than this program knows.
    let database = rusqlite::Connection::open(desk.data().join("polygate.db")).unwrap();
    database.execute_batch("ALTER TABLE api_key RENAME COLUMN networks TO nets").unwrap();
    let (code, error) = desk.fails("serve --listen 127.0.0.1:0");
    assert!(code == 1 && error.starts_with("polygate: the database failed: "), "{error}");
}

#[test]
fn one_server_at_a_time_has_a_data_directory() {
    let desk = Desk::new();
    let server = Server::start(&desk, "");
    let (code, error) = desk.fails("serve --listen 127.0.0.1:0");
    let wanted = "polygate: another server has the data directory data: one at a time can serve it\n";
    assert_eq!((code, error.as_str()), (1, wanted));
    // Commands take no part in that, and a server that has ended, however it did, is in nobody's way.
    desk.create("");
    drop(server);
    Server::start(&desk, "");
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let desk = Desk::new();
    desk.create("");
    std::fs::write(desk.data().join("polygate.db"), "this is no database at all, whatever its name says").unwrap();
    let (code, error) = desk.fails("keys list");
    let wanted = "polygate: cannot open the database data/polygate.db: file is not a database\n";
    assert_eq!((code, error.as_str()), (1, wanted));
}

#[test]
fn a_first_start_that_fails_has_made_no_key() {
    let desk = Desk::new();
    std::fs::create_dir_all(desk.data()).unwrap();
    let in_the_way = desk.data().join("journal");
    std::fs::write(&in_the_way, "").unwrap();
    let (code, error) = desk.fails("serve --listen 127.0.0.1:0");
    assert!(code == 1 && error.contains("journal"), "{error}");
    std::fs::remove_file(in_the_way).unwrap();
    let mut server = Server::start(&desk, "");
    let key = server.printed("pg-").unwrap();
    assert_eq!(server.call(&key), 200);
}
