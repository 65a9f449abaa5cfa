//! Notices: what an account is told when it has used most of a month's credits, or all of them.

use data_encoding::HEXLOWER;
use ring::digest;
use serde::Serialize;

use super::period::Period;
use super::stamp::Stamp;

/// A threshold that an account has reached in a billing month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The address of the account.
    pub account: String,
    /// The name of its plan, now.
    pub plan: String,
    /// The threshold: 80, 95 or 100 percent of what can be spent in the month, the bonus included.
    pub percent: u8,
    /// Credits that were used in the month when the threshold was seen to be reached.
    pub used: u64,
    /// Credits that could be spent in it, then.
    pub max: u64,
    /// The billing month.
    pub period: Period,
    /// When the threshold was seen to be reached, as Unix time.
    pub at_unix_s: u64,
}

impl Notice {
    /// What it goes by outside: the same at every attempt, by every channel and from a restored database, so that a
    /// receiver knows a message that it has already. Tells nothing about the account.
    pub fn id(&self) -> String {
        let what = format!("{}\n{}\n{}", self.account, self.period.start_unix_s, self.percent);
        let hash = digest::digest(&digest::SHA256, what.as_bytes());
        format!("msg_{}", HEXLOWER.encode(&hash.as_ref()[..16]))
    }

    /// The body of the webhook, a JSON object as Standard Webhooks recommends it: `type`, `timestamp` and `data`.
    pub fn json(&self) -> String {
        let message = Message {
            r#type: "credits.threshold_reached",
            timestamp: moment(self.at_unix_s),
            data: Data {
                account: &self.account,
                plan: &self.plan,
                percent: self.percent,
                used: self.used,
                max: self.max,
                period_start: moment(self.period.start_unix_s),
                renewal: moment(self.period.end_unix_s),
            },
        };
        serde_json::to_string(&message).expect("text and numbers are JSON")
    }

    /// The subject of the e-mail.
    pub fn subject(&self) -> String {
        match self.percent {
            100 => "All credits of this month are used".to_owned(),
            percent => format!("{percent} % of this month's credits are used"),
        }
    }

    /// The text of the e-mail.
    pub fn text(&self) -> String {
        let Notice { account, plan, percent, used, max, .. } = self;
        let renewal = moment(self.period.end_unix_s);
        let renewal = renewal.as_deref().and_then(|moment| moment.get(..10)).unwrap_or("a day after the year 9999");
        let then = match percent {
            100 => "\nUntil then calls are refused, unless credits are added or the plan is\nchanged.\n",
            _ => "",
        };
        format!(
            "{percent} % of this month's credits are used: {used} of {max}.\n\
             \n\
             Account: {account}\n\
             Plan:    {plan}\n\
             Renewal: {renewal} (UTC)\n\
             {then}"
        )
    }
}

#[derive(Serialize)]
struct Message<'a> {
    r#type: &'static str,
    timestamp: Option<String>,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    account: &'a str,
    plan: &'a str,
    percent: u8,
    used: u64,
    max: u64,
    period_start: Option<String>,
    renewal: Option<String>,
}

/// RFC 3339; nothing past the year 9999, which has no such form.
fn moment(unix_s: u64) -> Option<String> {
    Stamp::at(unix_s).map(|stamp| stamp.rfc3339().as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice() -> Notice {
        Notice {
            account: "ann@example.org".to_owned(),
            plan: "free".to_owned(),
            percent: 80,
            used: 803,
            max: 1_000,
            period: Period { start_unix_s: 1_765_843_200, end_unix_s: 1_768_521_600 },
            at_unix_s: 1_765_924_235,
        }
    }

    #[test]
    fn the_webhook_has_type_time_and_data() {
        let wanted = concat!(
            r#"{"type":"credits.threshold_reached","timestamp":"2025-12-16T22:30:35Z","data":{"#,
            r#""account":"ann@example.org","plan":"free","percent":80,"used":803,"max":1000,"#,
            r#""period_start":"2025-12-16T00:00:00Z","renewal":"2026-01-16T00:00:00Z"}}"#,
        );
        assert_eq!(notice().json(), wanted);
        let far = Notice { at_unix_s: u64::MAX, ..notice() };
        assert!(far.json().contains(r#""timestamp":null"#));
    }

    #[test]
    fn the_mail_says_what_happened_and_when_credits_are_renewed() {
        assert_eq!(notice().subject(), "80 % of this month's credits are used");
        let wanted = "80 % of this month's credits are used: 803 of 1000.\n\
                      \n\
                      Account: ann@example.org\n\
                      Plan:    free\n\
                      Renewal: 2026-01-16 (UTC)\n";
        assert_eq!(notice().text(), wanted);
        let all = Notice { percent: 100, used: 1_000, ..notice() };
        assert_eq!(all.subject(), "All credits of this month are used");
        let wanted = "Renewal: 2026-01-16 (UTC)\n\
                      \n\
                      Until then calls are refused, unless credits are added or the plan is\n\
                      changed.\n";
        assert!(all.text().ends_with(wanted), "{}", all.text());
    }

    #[test]
    fn the_id_is_of_account_month_and_threshold_alone() {
        // Computed apart, with Python's hashlib.
        assert_eq!(notice().id(), "msg_64de2f6534f7626a73806fa59e50247a");
        let later = Notice { used: 900, max: 2_000, plan: "pro".to_owned(), at_unix_s: 0, ..notice() };
        assert_eq!(later.id(), notice().id());
        let next_month = Period { start_unix_s: 1_768_521_600, end_unix_s: 1_771_200_000 };
        for other in [
            Notice { percent: 95, ..notice() },
            Notice { account: "bob@example.org".to_owned(), ..notice() },
            Notice { period: next_month, ..notice() },
        ] {
            assert_ne!(other.id(), notice().id());
        }
    }
}
