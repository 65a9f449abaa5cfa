//! What an operator asks and does about credits, usage and backups: the real program against a real data directory.

use polygate::pure::period::Period;
use polygate::state::clock::Clock;
use serde_json::{Value, json};

use crate::program::{Desk, Server};

/// The database, to write into it what a server would have.
fn database(desk: &Desk) -> rusqlite::Connection {
    rusqlite::Connection::open(desk.data().join("polygate.db")).unwrap()
}

/// The first second of the hour that was so many hours ago, and so written in RFC 3339.
fn hour(hours_ago: u64) -> (u64, String) {
    let unix_s = Clock::system().unix_s() / 3_600 * 3_600 - hours_ago * 3_600;
    let written = time::OffsetDateTime::from_unix_timestamp(unix_s.try_into().unwrap()).unwrap();
    (unix_s, written.format(&time::format_description::well_known::Rfc3339).unwrap())
}

/// A desk with two accounts and the calls of two hours: one just now, one ten days ago.
fn with_usage() -> (Desk, String, String) {
    let desk = Desk::new();
    desk.create("--account a@example.org --name office");
    desk.create("--account b@example.org --plan pro");
    let ((now, now_at), (early, early_at)) = (hour(0), hour(240));
    let rows = format!(
        "INSERT INTO api VALUES (1, 'totpgenerator'), (2, 'key2otp');
         INSERT INTO usage_hour VALUES
            (1, {early}, 1, 1, 1, 0, 0, 0, 0, 1),
            (1, {now}, 1, 1, 10, 1, 2, 3, 4, 10),
            (1, {now}, 9, 2, 5, 0, 0, 0, 0, 5),
            (2, {now}, 2, 1, 100, 0, 0, 0, 0, 200);
         UPDATE api_key SET last_used_unix_s = {now} + 7 WHERE id = 1"
    );
    database(&desk).execute_batch(&rows).unwrap();
    (desk, now_at, early_at)
}

#[test]
fn credits_are_granted_once_and_taken_back_as_far_as_they_are_left() {
    let desk = Desk::new();
    desk.ok("accounts create a@example.org");
    desk.ok("accounts create b@example.org --plan pro");
    let grant = "credits grant A@example.org 250 --reference invoice-7";
    assert_eq!(desk.ok(grant), "250 credits are granted to a@example.org, reference invoice-7.\n");
    let again = desk.ok(grant);
    let start = "250 credits were granted to a@example.org on 20";
    assert!(again.starts_with(start) && again.ends_with("Z already, reference invoice-7.\n"), "{again}");
    let (code, error) = desk.fails("credits grant b@example.org 250 --reference invoice-7");
    let clash = "polygate: the reference invoice-7 already stands for a grant of 250 credits to a@example.org\n";
    assert_eq!((code, error.as_str()), (1, clash));
    let (code, error) = desk.fails("credits grant a@example.org -751");
    let left = "polygate: only 750 are left of the credits that the account was granted\n";
    assert_eq!((code, error.as_str()), (1, left));
    let taken = desk.json("credits grant a@example.org -50 --note mistake");
    let reference = taken["reference"].as_str().unwrap();
    assert_eq!(reference.len(), 36, "a random one");
    let wanted = json!({
        "id": 3, "account": "a@example.org", "credits": -50, "reference": reference, "note": "mistake",
        "granted_at": taken["granted_at"], "repeated": false,
    });
    assert_eq!(taken, wanted);
    let list = desk.json("credits list a@example.org");
    let credits: Vec<&Value> = list.as_array().unwrap().iter().map(|grant| &grant["credits"]).collect();
    assert_eq!(credits, [500, 250, -50]);
    let table = desk.ok("credits list a@example.org");
    assert!(table.starts_with("GRANTED               CREDITS  REFERENCE  "), "{table}");
    assert_eq!(desk.json("credits list b@example.org"), json!([]));
    for (line, error) in [
        ("credits grant a@example.org 0", "a grant of 0 credits is none"),
        ("credits grant c@example.org 5", "there is no account with the address c@example.org"),
        ("credits list c@example.org", "there is no account with the address c@example.org"),
    ] {
        assert_eq!(desk.fails(line), (1, format!("polygate: {error}\n")), "{line}");
    }
    assert_eq!(desk.fails("credits grant a@example.org many").0, 2);
}

#[test]
fn accounts_show_says_where_an_account_stands() {
    let (desk, now_at, _) = with_usage();
    let account = desk.json("accounts list")[0].clone();
    let now = hour(0).0;
    let period = Period::containing(now, now);
    desk.create("--account a@example.org");
    desk.ok("keys revoke 3");
    desk.ok("credits grant a@example.org 100 --reference r");
    let rows = format!(
        "INSERT INTO credit VALUES (1, {0}, 1000, 200, 50);
         UPDATE bonus SET used = 450 WHERE account_id = 1;
         INSERT INTO notice VALUES (1, 1, {0}, 80, 'free', 900, 1100, {now}), (2, 1, {0} - 1, 95, 'free', 1, 1, {now})",
        period.start_unix_s,
    );
    database(&desk).execute_batch(&rows).unwrap();
    let shown = desk.json("accounts show A@example.org");
    let wanted = json!({
        "id": 1, "email": "a@example.org", "plan": "free", "bonus_credits": 600, "suspended": false,
        "signed_up_at": account["signed_up_at"],
        "month_start_at": shown["month_start_at"], "renewal_at": shown["renewal_at"],
        "credits": {
            "month": { "used": 200, "max": 1000, "remaining": 800 },
            "bonus": { "used": 50, "max": 200, "remaining": 150 },
            "together": { "used": 250, "max": 1200, "remaining": 950 },
        },
        "live_keys": 1,
        "last_activity_at": format!("{}:07Z", &now_at[..16]),
        "last_24_hours": {
            "calls": 25, "ok": 15, "client_error": 1, "rate_limited": 2, "exhausted": 3, "server_error": 4, "credits": 15,
        },
        "notices": [{ "percent": 80, "used": 900, "max": 1100, "at": now_at }],
    });
    assert_eq!(shown, wanted);
    assert_eq!(&shown["month_start_at"].as_str().unwrap()[..10], &account["signed_up_at"].as_str().unwrap()[..10]);

    let text = desk.ok("accounts show a@example.org");
    let (month, renewal) =
        (&shown["month_start_at"].as_str().unwrap()[..10], &shown["renewal_at"].as_str().unwrap()[..10]);
    let wanted = format!(
        "account    a@example.org\n\
         plan       free\n\
         state      good\n\
         signed up  {}\n\
         month      {month} until {renewal}\n\
         good keys  1\n\
         last call  {}:07Z\n\
         \n\
         CREDITS   USED  MAX   REMAINING\n\
         month     200   1000  800\n\
         bonus     50    200   150\n\
         together  250   1200  950\n\
         \n\
         LAST      CALLS  OK  CLIENT ERROR  RATE LIMITED  EXHAUSTED  SERVER ERROR  CREDITS\n\
         24 hours  25     15  1             2             3          4             15\n\
         \n\
         NOTICE  USED  MAX   AT\n\
         80 %    900   1100  {now_at}\n",
        account["signed_up_at"].as_str().unwrap(),
        &now_at[..16],
    );
    assert_eq!(text, wanted);
    assert!(desk.ok("keys list").contains(&format!("{}:07Z", &now_at[..16])));
    assert_eq!(desk.json("keys list")[1]["last_used_at"], Value::Null);
    assert!(desk.fails("accounts show c@example.org").1.contains("there is no account"));
}

#[test]
fn what_was_used_in_an_earlier_month_is_past_and_a_plan_may_be_unknown() {
    let desk = Desk::new();
    desk.ok("accounts create a@example.org --plan pro");
    let now = hour(0).0;
    let rows = format!(
        "INSERT INTO credit VALUES (1, {}, 1000, 200, 50); UPDATE account SET plan = 'gone'",
        Period::containing(now, now).start_unix_s - 1,
    );
    database(&desk).execute_batch(&rows).unwrap();
    let shown = desk.json("accounts show a@example.org");
    assert_eq!(shown["credits"]["month"], json!({ "used": 0, "max": null, "remaining": null }));
    assert_eq!(shown["credits"]["bonus"], json!({ "used": 0, "max": 0, "remaining": 0 }));
    assert_eq!((&shown["last_activity_at"], &shown["notices"]), (&Value::Null, &json!([])));
    let text = desk.ok("accounts show a@example.org");
    assert!(text.contains("gone, which the configuration does not define\n"), "{text}");
    assert!(text.contains("last call  never\n") && text.contains("month     0     -    -\n"), "{text}");
}

#[test]
fn a_smaller_plan_leaves_nothing_of_a_month_that_has_used_more_and_all_of_the_bonus() {
    let desk = Desk::new();
    desk.ok("accounts create a@example.org --plan pro");
    let now = hour(0).0;
    let month = format!("INSERT INTO credit VALUES (1, {}, 9000, 5000, 0)", Period::containing(now, now).start_unix_s);
    database(&desk).execute_batch(&month).unwrap();
    desk.ok("accounts set-plan a@example.org free");
    desk.ok("credits grant a@example.org 7");
    let credits = &desk.json("accounts show a@example.org")["credits"];
    assert_eq!(credits["month"], json!({ "used": 5000, "max": 1000, "remaining": 0 }));
    assert_eq!(credits["together"], json!({ "used": 5000, "max": 1007, "remaining": 7 }));
}

#[test]
fn usage_is_a_table_json_or_csv() {
    let (desk, now_at, early_at) = with_usage();
    let days = desk.json("usage");
    let days: Vec<&Value> = days.as_array().unwrap().iter().collect();
    assert_eq!(days.len(), 31, "today, and thirty days back");
    let busy: Vec<_> = days.iter().filter(|day| day["calls"] != 0).collect();
    let wanted = json!({
        "day": now_at[..10], "calls": 125, "ok": 115, "client_error": 1, "rate_limited": 2, "exhausted": 3,
        "server_error": 4, "credits": 215,
    });
    assert_eq!((busy.len(), *busy[1]), (2, &wanted));
    assert_eq!((&busy[0]["day"], &busy[0]["calls"]), (&json!(early_at[..10]), &json!(1)));

    let head = "calls,ok,client_error,rate_limited,exhausted,server_error,credits";
    assert_eq!(
        desk.ok("usage --account A@example.org --by hour --csv"),
        format!("hour,{head}\n{early_at},1,1,0,0,0,0,1\n{now_at},25,15,1,2,3,4,15\n")
    );
    assert_eq!(
        desk.ok("usage --by account --since 2d --csv"),
        format!("account,{head}\na@example.org,25,15,1,2,3,4,15\nb@example.org,100,100,0,0,0,0,200\n")
    );
    assert_eq!(
        desk.ok("usage --by api --account a@example.org --since 45m"),
        "API            CALLS  OK  CLIENT ERROR  RATE LIMITED  EXHAUSTED  SERVER ERROR  CREDITS\n\
         totpgenerator  20     10  1             2             3          4             10\n\
         key2otp        5      5   0             0             0          0             5\n\
         all            25     15  1             2             3          4             15\n"
    );
    let key = &desk.json("keys list")[0];
    let short = format!("{}…{}", key["prefix"].as_str().unwrap(), key["last_four"].as_str().unwrap());
    let keys = desk.json("usage --by key --account a@example.org");
    let labels = |row: &Value| ["id", "key", "account", "name"].map(|name| row[name].clone());
    assert_eq!(labels(&keys[0]), [json!(1), json!(short), json!("a@example.org"), json!("office")]);
    assert_eq!(labels(&keys[1]), [json!(9), Value::Null, json!("a@example.org"), Value::Null]);
    let csv = desk.ok("usage --by key --account a@example.org --csv");
    assert!(csv.contains(&format!("\n1,{short},a@example.org,office,21,")), "{csv}");
    assert!(csv.contains("\n9,,a@example.org,,5,"), "{csv}");
    assert!(desk.ok("usage --by key").contains("\n9    -  "));
}

#[test]
fn usage_that_makes_no_sense_is_refused() {
    let desk = Desk::new();
    desk.ok("accounts create a@example.org");
    for line in ["usage --json --csv", "usage --by year", "usage --since ever"] {
        assert_eq!(desk.fails(line).0, 2, "{line}");
    }
    assert_eq!(desk.fails("usage --account b@example.org").0, 1);
    assert_eq!(desk.ok("usage --by account --csv").lines().count(), 1);
    assert!(desk.ok("usage --help").contains("[default: 30d]"));
}

#[test]
fn a_backup_is_made_beside_a_server_and_restored_into_another_directory() {
    let desk = Desk::new();
    let mut server = Server::start(&desk, "");
    let key = server.printed("pg-").unwrap();
    desk.ok("credits grant admin@localhost 5 --reference r");
    let said = desk.ok("backup copy.db");
    let file = desk.directory.path().join("copy.db");
    let bytes = std::fs::metadata(&file).unwrap().len();
    assert_eq!(said, format!("The backup copy.db: {bytes} bytes, accounts: 1, keys: 1, credits charged: 0.\n"));
    let exists = "polygate: copy.db is there already: --force replaces it\n";
    assert_eq!(desk.fails("backup copy.db"), (1, exists.to_owned()));
    let backup = desk.json("backup copy.db --force");
    assert_eq!(backup, json!({ "bytes": bytes, "accounts": 1, "keys": 1, "credits_used": 0 }));
    let inside = "polygate: data/copy.db is in a data directory, and would be lost with it: name a file elsewhere\n";
    assert_eq!(desk.fails("backup data/copy.db"), (1, inside.to_owned()));
    assert_eq!(server.call(&key), 200, "the server goes on");

    let served = "polygate: another server has the data directory data: one at a time can serve it\n";
    assert_eq!(desk.fails("restore copy.db"), (1, served.to_owned()));
    drop(server);
    let (code, error) = desk.fails("restore copy.db");
    let holds = "polygate: the data directory data already holds polygate.db: move that away, or ";
    assert!(code == 1 && error.starts_with(holds), "{error}");
    std::fs::rename(desk.data(), desk.directory.path().join("old")).unwrap();
    let said = desk.ok("restore copy.db");
    let start = format!("The data directory data, restored from copy.db: {bytes} bytes, accounts: 1, keys: 1, ");
    assert!(said.starts_with(&start), "{said}");
    assert_eq!(desk.json("credits list admin@localhost").as_array().unwrap().len(), 2);
    let server = Server::start(&desk, "");
    assert_eq!(server.call(&key), 200, "keys are good as they were");
}

#[test]
fn what_is_no_backup_is_not_restored() {
    let desk = Desk::new();
    std::fs::write(desk.directory.path().join("notes.txt"), "no backup at all, but a text\n".repeat(99)).unwrap();
    assert_eq!(desk.fails("restore notes.txt"), (1, "polygate: notes.txt is no Polygate database\n".to_owned()));
    let (code, error) = desk.fails("restore nothing");
    assert!(code == 1 && error.starts_with("polygate: nothing: "), "{error}");
    assert!(!desk.data().join("polygate.db").exists());
    // Nothing there to be backed up.
    assert_eq!(desk.fails("backup copy.db").0, 1);
    assert!(!desk.directory.path().join("copy.db").exists());
}

#[test]
fn what_a_killed_server_has_charged_is_there_for_the_next_command() {
    let desk = Desk::new();
    let key = desk.create("--plan pro");
    let mut server = Server::start(&desk, "");
    for _ in 0..7 {
        assert_eq!(server.call(&key), 200);
    }
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    // Before or after a fold: all seven are there, and stay there.
    desk.ok("backup copy.db");
    for _ in 0..2 {
        assert_eq!(desk.json("accounts show admin@localhost")["credits"]["together"]["used"], 7);
        assert_eq!(desk.json("usage --by account")[0]["credits"], 7);
    }
    let copy = rusqlite::Connection::open(desk.data().join("../copy.db")).unwrap();
    let used: u64 = copy.query_row("SELECT sum(used) FROM credit", [], |row| row.get(0)).unwrap();
    assert_eq!(used, 7);
    let server = Server::start(&desk, "");
    assert_eq!(server.call(&key), 200);
    // A server that runs folds by itself; commands leave its journal alone.
    desk.ok("accounts show admin@localhost");
    assert_eq!(server.call(&key), 200);
    drop(server);
    assert_eq!(desk.json("accounts show admin@localhost")["credits"]["together"]["used"], 9);
}
