//! Credits over time: what a restart leaves, what is counted, and who is told.

use std::sync::Arc;
use std::time::Duration;

use polygate::pure::plan::Plan;
use polygate::state::clock::Clock;
use polygate::state::folder;
use polygate::state::report::Report;
use polygate::state::store::Store;
use rusqlite::Connection;

use crate::support::{App, Reports, Setup};

const CALL: &str =
    "POST /v1/totpgenerator\nContent-Type: application/json\nX-API-Key: $key\n\n{\"secret\":\"JBSWY3DPEHPK3PXP\"}";
const FAULT: &str = "POST /v1/totpgenerator\nContent-Type: application/json\nX-API-Key: $key\n\n{}";

/// The database of an application, as another program would open it.
fn database(app: &App) -> Connection {
    Connection::open(app.data.path().join("polygate.db")).unwrap()
}

/// A row of numbers.
fn row<const N: usize>(app: &App, sql: &str) -> [i64; N] {
    database(app).query_row(sql, [], |row| Ok(std::array::from_fn(|column| row.get_unwrap(column)))).unwrap()
}

#[tokio::test]
async fn a_restart_gives_nothing_back_and_takes_nothing() {
    for durability in ["process", "power"] {
        let config = format!("durability: {durability}");
        let mut app = App::new(&Setup { config, plan: "mega".into(), ..Setup::default() });
        for used in 1..=5 {
            assert_eq!(app.send(CALL).await.header("x-api-credits-used"), used.to_string());
        }
        // Not folded: the journal alone knows of them.
        app = app.restart();
        assert_eq!(app.send(FAULT).await.header("x-api-credits-used"), "5");
        assert_eq!(app.send(CALL).await.header("x-api-credits-used"), "6");
        app.fold();
        app = app.restart();
        assert_eq!(app.send(CALL).await.header("x-api-remaining-credits"), "3999993");
    }
}

#[tokio::test]
async fn the_bonus_is_spent_first_and_what_is_left_outlives_month_and_restart() {
    let config = "plans: { free: { credits_a_month: 3, bonus_credits: 4 } }";
    let mut app = App::new(&Setup { config: config.into(), ..Setup::default() });
    for _ in 0..2 {
        assert_eq!(app.send(CALL).await.header("x-api-max-credits"), "7");
    }
    app = app.restart();
    app.clock.advance(Duration::from_secs(31 * 86_400));
    let answer = app.send(FAULT).await;
    assert_eq!((answer.header("x-api-credits-used"), answer.header("x-api-max-credits")), ("0", "5"));
    for _ in 0..5 {
        assert_eq!(app.send(CALL).await.status, 200);
    }
    assert_eq!(app.send(CALL).await.status, 403);
    app = app.restart();
    assert_eq!(app.send(CALL).await.status, 403);
    app.clock.advance(Duration::from_secs(31 * 86_400));
    assert_eq!(app.send(CALL).await.header("x-api-max-credits"), "3");
    app.fold();
    assert_eq!(row(&app, "SELECT granted, used FROM bonus"), [4, 4]);
    assert_eq!(row(&app, "SELECT count(*), sum(used), sum(bonus_used), max(ceiling) FROM credit"), [3, 4, 4, 3]);
}

#[tokio::test]
async fn every_outcome_is_counted_in_its_hour() {
    let config =
        "plans: { free: { credits_a_month: 2, requests_a_minute: 5 } }\napis: { key2otp: { cost: 0, access: key } }";
    let app = App::new(&Setup { config: config.into(), ..Setup::default() });
    for (request, status) in [(CALL, 200), (CALL, 200), (CALL, 403), (FAULT, 400), (FAULT, 400), (FAULT, 429)] {
        assert_eq!(app.send(request).await.status, status);
    }
    app.clock.advance(Duration::from_secs(3_600));
    let free = "GET /v1/api/key2otp?secret=JBSWY3DPEHPK3PXP\nX-API-Key: $key\n";
    assert_eq!(app.send(free).await.status, 200);
    app.fold();
    app.fold();
    let counts = "SELECT ok, client_error, rate_limited, exhausted, server_error, credits, hour_unix_s FROM usage_hour";
    assert_eq!(row(&app, &format!("{counts} ORDER BY hour_unix_s")), [2, 2, 1, 1, 0, 2, 1_765_922_400]);
    assert_eq!(row(&app, &format!("{counts} ORDER BY hour_unix_s DESC")), [1, 0, 0, 0, 0, 0, 1_765_926_000]);
    assert_eq!(row(&app, "SELECT count(*), max(api_id) FROM usage_hour"), [2, 2]);
    assert_eq!(row(&app, "SELECT last_used_unix_s FROM api_key"), [1_765_927_835]);
}

#[tokio::test]
async fn each_threshold_is_noticed_once_a_month() {
    let config = "plans: { free: { credits_a_month: 15, bonus_credits: 5 } }";
    let mut app = App::new(&Setup { config: config.into(), ..Setup::default() });
    let mut noticed = 0;
    for used in 1..=20_i64 {
        assert_eq!(app.send(CALL).await.status, 200);
        app.fold();
        let count = row::<1>(&app, "SELECT count(*) FROM notice")[0];
        if count > noticed {
            noticed = count;
            let at = [16, 19, 20][count as usize - 1];
            assert_eq!(row(&app, "SELECT used, max FROM notice ORDER BY id DESC"), [at, 20]);
            assert_eq!(used, at);
        }
    }
    assert_eq!(noticed, 3);
    app = app.restart();
    assert_eq!(app.send(CALL).await.status, 403);
    app.clock.advance(Duration::from_secs(31 * 86_400));
    for _ in 0..15 {
        assert_eq!(app.send(CALL).await.status, 200);
    }
    // All three at once, from the journal alone.
    app = app.restart();
    app.fold();
    assert_eq!(row(&app, "SELECT count(*), sum(percent) FROM notice WHERE max = 15"), [3, 275]);
    assert_eq!(row(&app, "SELECT count(*) FROM delivery"), [0]);
}

#[tokio::test]
async fn a_smaller_plan_is_noticed_without_a_call() {
    let config = "plans: { free: { credits_a_month: 100 }, less: { credits_a_month: 10 } }";
    let app = App::new(&Setup { config: config.into(), ..Setup::default() });
    for _ in 0..10 {
        app.send(CALL).await;
    }
    app.fold();
    assert_eq!(row(&app, "SELECT count(*) FROM notice"), [0]);
    app.store().set_plan("test@example.com", &app.gateway.config.plans[1], app.clock.unix_s()).unwrap();
    app.fold();
    assert_eq!(row(&app, "SELECT count(*), min(max) FROM notice"), [3, 10]);
}

#[tokio::test]
async fn a_damaged_ceiling_stops_neither_the_charges_under_it_nor_the_server() {
    let reports = Reports::default();
    let mut app = App::new(&Setup { plan: "mega".into(), reports: Some(reports.clone()), ..Setup::default() });
    for _ in 0..3 {
        assert_eq!(app.send(CALL).await.status, 200);
    }
    let segment = app.data.path().join("journal/0000000000000001.journal");
    let mut bytes = std::fs::read(&segment).unwrap();
    assert_eq!(bytes[32 + 4], 2, "the first record is a ceiling");
    bytes[32 + 20] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    app = app.restart();
    assert!(reports.lock().unwrap().concat().contains("32 bytes at offset 32 are not as they were written"));
    assert_eq!(row(&app, "SELECT used, ceiling FROM credit"), [3, 3]);
    assert_eq!(app.send(CALL).await.header("x-api-credits-used"), "4");
    app.fold();
    assert_eq!(row(&app, "SELECT used, ceiling FROM credit"), [4, 4_000_000]);
}

#[tokio::test]
async fn a_ceiling_that_is_damaged_while_the_server_runs_stops_no_fold() {
    let reports = Some(Reports::default());
    let app = App::new(&Setup { plan: "mega".into(), reports, ..Setup::default() });
    assert_eq!(app.send(CALL).await.status, 200);
    let segment = app.data.path().join("journal/0000000000000001.journal");
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"?", 32 + 20).unwrap();
    for used in 1..=3 {
        app.fold();
        assert_eq!(row(&app, "SELECT used, ceiling FROM credit"), [used, used]);
        assert_eq!(app.send(CALL).await.status, 200);
    }
}

#[test]
fn the_database_never_holds_more_charges_than_there_were_credits() {
    let app = App::new(&Setup::default());
    let database = database(&app);
    database.execute("INSERT INTO credit VALUES (1, 0, 5, 5, 0)", []).unwrap();
    for wrong in [
        "UPDATE credit SET used = 6",
        "UPDATE credit SET used = -1",
        "UPDATE bonus SET used = 501",
        "UPDATE credit_grant SET credits = 1000",
        "DELETE FROM credit_grant",
        "INSERT INTO credit_grant (account_id, credits, reference, note, at_unix_s) VALUES (1, 5, 'sign-up:1', '', 0)",
    ] {
        database.execute(wrong, []).unwrap_err();
    }
}

/// An application whose notices go to a webhook, with ten credits, all but one of them used and nothing folded.
async fn almost_spent() -> App {
    let config = "plans: { free: { credits_a_month: 10 } }\n\
                  notices: { webhook: { url: 'http://127.0.0.1:1/', secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw } }";
    let app = App::new(&Setup { config: config.into(), ..Setup::default() });
    for _ in 0..9 {
        assert_eq!(app.send(CALL).await.status, 200);
    }
    app
}

#[tokio::test]
async fn a_command_that_settles_the_journal_leaves_the_notices_to_the_server() {
    let app = almost_spent().await;
    let app = app.restart_after(|config, clock| {
        let mut store = Store::open(&config.data).unwrap();
        let report: Report = Arc::new(|message| panic!("{message}"));
        folder::settle(&config.data, &mut store, clock, &report).unwrap();
        let database = Connection::open(config.data.join("polygate.db")).unwrap();
        let count = |sql| database.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap();
        assert_eq!((count("SELECT used FROM credit"), count("SELECT count(*) FROM notice")), (9, 0));
        config
    });
    assert_eq!(row(&app, "SELECT count(*), max(percent) FROM notice"), [1, 80]);
    assert_eq!(row(&app, "SELECT count(*) FROM delivery"), [1]);
}

#[tokio::test]
async fn a_plan_that_the_configuration_makes_smaller_is_noticed_at_the_start() {
    let app = almost_spent().await;
    app.fold();
    assert_eq!(row(&app, "SELECT count(*), max(max) FROM notice"), [1, 10]);
    let app = app.restart_after(|mut config, _| {
        config.plans = vec![Arc::new(Plan { credits_a_month: 9, ..(*config.plans[0]).clone() })];
        config
    });
    assert_eq!(row(&app, "SELECT count(*), max(percent), min(max) FROM notice"), [3, 100, 9]);
    assert_eq!(app.send(CALL).await.status, 403);
}

#[tokio::test]
async fn a_date_that_was_wrong_for_a_moment_does_not_last() {
    let mut app = almost_spent().await;
    app.clock.advance(Duration::from_secs(4 * 366 * 86_400));
    assert_eq!(app.send(CALL).await.header("x-api-credits-used"), "1");
    app.fold();
    app.clock = Clock::fixed(1_765_924_235 + 60);
    app = app.restart();
    let answer = app.send(CALL).await;
    assert_eq!((answer.header("x-api-credits-used"), answer.header("x-api-renewal")), ("10", "1768521600"));
    assert_eq!(app.send(CALL).await.status, 403);
}

#[tokio::test]
async fn with_a_cost_that_is_more_than_what_is_left_nothing_is_left() {
    let config = "plans: { free: { credits_a_month: 4 } }\napis: { totpgenerator: { cost: 3 } }";
    let app = App::new(&Setup { config: config.into(), ..Setup::default() });
    assert_eq!(app.send(CALL).await.header("x-api-remaining-credits"), "1");
    let refused = app.send(CALL).await;
    assert_eq!((refused.status, refused.header("x-api-remaining-credits")), (403, "0"));
}

#[tokio::test]
async fn a_journal_that_is_gone_is_told_once() {
    let reports = Reports::default();
    let mut app = App::new(&Setup { reports: Some(reports.clone()), ..Setup::default() });
    assert_eq!(app.send(CALL).await.status, 200);
    app.fold();
    app = app.restart_after(|config, _| {
        std::fs::remove_dir_all(config.data.join("journal")).unwrap();
        config
    });
    app.restart();
    let told = reports.lock().unwrap();
    let start = "segment 1 of the journal in ";
    assert!(told.len() == 1 && told[0].starts_with(start) && told[0].contains("is not there any more"), "{told:?}");
}
