//! What an operator asks and does about credits, usage and backups: the real program against a real data directory.

use serde_json::{Value, json};

use crate::program::Desk;

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
