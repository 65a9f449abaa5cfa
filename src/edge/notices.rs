//! The courier: delivers what is in the outbox, from a thread of its own, and notes what came of it.
//!
//! An attempt is noted when it has ended. A program that is stopped before makes it again, under the same id: nothing
//! is lost, and a receiver can drop what it has already. Each channel has its own places for deliveries under way, so
//! that a receiver which does not answer holds up nothing but its own.

mod mail;
mod webhook;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use crate::config::Notices;
use crate::pure::notice::Notice;
use crate::pure::retry;
use crate::state::background::{self, Background};
use crate::state::clock::Clock;
use crate::state::metrics::Metrics;
use crate::state::report::Report;
use crate::state::store::{Channel, DeliveryState, Store, StoreError};

/// How often the outbox is looked into.
const INTERVAL: Duration = Duration::from_millis(200);
/// The most deliveries under way at once, of each channel.
const UNDER_WAY_MAX: usize = 8;
/// How long one attempt may take in all.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// The channels that are configured.
pub fn channels(config: &Notices) -> Vec<Channel> {
    let webhook = config.webhook.as_ref().map(|_| Channel::Webhook);
    webhook.into_iter().chain(config.email.as_ref().map(|_| Channel::Email)).collect()
}

/// What sends by each channel that is configured.
pub struct Lanes(Vec<Lane>);

impl Lanes {
    /// The channels of `config`. Fails when the system has no use for one.
    pub fn of(config: &Notices) -> io::Result<Lanes> {
        let mut lanes = Vec::new();
        if let Some(webhook) = &config.webhook {
            lanes.push(Lane::new(Channel::Webhook, Sender::Webhook(Box::new(webhook::Sender::new(webhook)?))));
        }
        if let Some(email) = &config.email {
            lanes.push(Lane::new(Channel::Email, Sender::Mail(mail::Sender::new(email)?)));
        }
        Ok(Lanes(lanes))
    }
}

/// Delivers notices by the channels that are configured, until the [`Background`] is dropped: attempts under way are cut
/// off then, and made again by the next.
///
/// `report` is told when a channel begins to fail and when it delivers again, and of a store that fails, once until it
/// works again. Where no channel is configured there is no thread. Fails when the system refuses one.
pub fn watch(
    lanes: Lanes,
    store: Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    report: Report,
) -> io::Result<Option<Background>> {
    start(lanes, store, clock, metrics, report, ATTEMPT_TIMEOUT)
}

fn start(
    Lanes(lanes): Lanes,
    store: Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    report: Report,
    attempt_timeout: Duration,
) -> io::Result<Option<Background>> {
    if lanes.is_empty() {
        return Ok(None);
    }
    let rounds = Rounds {
        store,
        clock,
        metrics,
        report,
        attempt_timeout,
        lanes,
        under_way: JoinSet::new(),
        taken: HashMap::new(),
        ended: Vec::new(),
        store_fails: false,
    };
    background::start("notices", move || rounds.run()).map(Some)
}

/// What the courier has in hand.
struct Rounds {
    store: Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    report: Report,
    attempt_timeout: Duration,
    lanes: Vec<Lane>,
    under_way: JoinSet<Outcome>,
    /// The deliveries that are under way, by their tasks.
    taken: HashMap<task::Id, Taken>,
    /// Attempts that have ended and are still to be noted. Their deliveries are not taken again until they are.
    ended: Vec<Ended>,
    store_fails: bool,
}

/// A channel with its sender.
struct Lane {
    channel: Channel,
    sender: Arc<Sender>,
    failing: bool,
}

/// What sends by a channel.
enum Sender {
    Webhook(Box<webhook::Sender>),
    Mail(mail::Sender),
}

/// A delivery that is not to be taken again: its lane, its number, and how often it had been tried before.
#[derive(Clone, Copy)]
struct Taken {
    lane: usize,
    id: i64,
    attempts: u32,
}

struct Ended {
    taken: Taken,
    outcome: String,
    state: DeliveryState,
    at_unix_s: u64,
}

/// What came of an attempt.
struct Outcome {
    end: End,
    /// A few words for the log; never anything that was sent or received, save a status.
    text: String,
}

/// What an attempt means for its delivery.
enum End {
    /// The receiver has it.
    Delivered,
    /// It may be had another time.
    Failed,
    /// The receiver will never take it.
    Refused,
}

impl Outcome {
    fn delivered(text: impl Into<String>) -> Outcome {
        Outcome { end: End::Delivered, text: text.into() }
    }

    fn failed(text: impl Into<String>) -> Outcome {
        Outcome { end: End::Failed, text: text.into() }
    }

    fn refused(text: impl Into<String>) -> Outcome {
        Outcome { end: End::Refused, text: text.into() }
    }
}

impl Lane {
    fn new(channel: Channel, sender: Sender) -> Lane {
        Lane { channel, sender: Arc::new(sender), failing: false }
    }
}

impl Sender {
    async fn send(&self, notice: &Notice, now_unix_s: u64) -> Outcome {
        match self {
            Sender::Webhook(sender) => sender.send(notice, now_unix_s).await,
            Sender::Mail(sender) => sender.send(notice).await,
        }
    }
}

impl Rounds {
    async fn run(mut self) {
        loop {
            let result = self.note_ended().and_then(|()| self.take_due());
            self.tell_of_store(result);
            tokio::select! {
                Some(ended) = self.under_way.join_next_with_id() => self.end(ended),
                () = sleep(INTERVAL) => {}
            }
        }
    }

    /// Notes the attempts that have ended. What the store does not take now is kept for the next time.
    fn note_ended(&mut self) -> Result<(), StoreError> {
        while let Some(Ended { taken, outcome, state, at_unix_s }) = self.ended.first() {
            self.store.record_attempt(taken.id, outcome, *state, *at_unix_s)?;
            self.ended.remove(0);
        }
        Ok(())
    }

    /// Begins with what is due, as far as there are places.
    fn take_due(&mut self) -> Result<(), StoreError> {
        let now_unix_s = self.clock.unix_s();
        for (number, lane) in self.lanes.iter().enumerate() {
            let taken = self.taken.values().chain(self.ended.iter().map(|ended| &ended.taken));
            let taken: Vec<i64> = taken.filter(|taken| taken.lane == number).map(|taken| taken.id).collect();
            let places = UNDER_WAY_MAX.saturating_sub(taken.len());
            if places == 0 {
                continue;
            }
            // Those that are taken are still due; as many are asked for as leave enough without them.
            let due = self.store.due_deliveries(lane.channel, now_unix_s, UNDER_WAY_MAX)?;
            for due in due.into_iter().filter(|due| !taken.contains(&due.id)).take(places) {
                let (sender, limit) = (Arc::clone(&lane.sender), self.attempt_timeout);
                let task = self.under_way.spawn(async move {
                    let sent = timeout(limit, sender.send(&due.notice, now_unix_s)).await;
                    sent.unwrap_or_else(|_| Outcome::failed(format!("timed out after {} s", limit.as_secs())))
                });
                self.taken.insert(task.id(), Taken { lane: number, id: due.id, attempts: due.attempts });
            }
        }
        Ok(())
    }

    /// Decides what comes after an attempt, and tells of a channel that has begun to fail or has ceased to.
    fn end(&mut self, ended: Result<(task::Id, Outcome), JoinError>) {
        let (task, outcome) =
            ended.unwrap_or_else(|error| (error.id(), Outcome::failed("a mistake in the program: it panicked")));
        let Some(taken) = self.taken.remove(&task) else { return };
        let at_unix_s = self.clock.unix_s();
        let state = match outcome.end {
            End::Delivered => DeliveryState::Delivered,
            End::Refused => DeliveryState::Abandoned,
            End::Failed => match retry::wait_s(taken.attempts.saturating_add(1), random()) {
                Some(wait_s) => DeliveryState::Pending { next_attempt_unix_s: at_unix_s.saturating_add(wait_s) },
                None => DeliveryState::Abandoned,
            },
        };
        let lane = &mut self.lanes[taken.lane];
        let name = lane.channel.as_str();
        let failed = state != DeliveryState::Delivered;
        self.metrics.notice(lane.channel, !failed);
        match (std::mem::replace(&mut lane.failing, failed), failed) {
            (false, true) => (self.report)(&format_args!(
                "a notice could not be delivered by {name}: {} (`polygate notices list` tells more)",
                outcome.text
            )),
            (true, false) => (self.report)(&format_args!("notices are delivered by {name} again")),
            _ => {}
        }
        self.ended.push(Ended { taken, outcome: outcome.text, state, at_unix_s });
    }

    fn tell_of_store(&mut self, result: Result<(), StoreError>) {
        let fails = result.is_err();
        if !std::mem::replace(&mut self.store_fails, fails)
            && let Err(error) = result
        {
            (self.report)(&format_args!("notices wait: {error}"));
        }
    }
}

/// Any number; zero when the system gives none, which only means that retries are not spread.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config::Webhook;
    use crate::pure::plan::Plan;
    use crate::pure::webhook::{Endpoint, SigningSecret};

    #[test]
    fn a_receiver_that_does_not_answer_has_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let plan = Plan { name: "free".into(), credits_a_month: 1_000, bonus_credits: 0, rate: None };
        store.create_account("ann@example.org", &plan, 0).unwrap();
        store.put_notice(1, Channel::Webhook, 0);
        // Connections wait here without being accepted.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let webhook = Some(Webhook { url: Endpoint::parse(&url).unwrap(), secret });
        let (sender, reports) = std::sync::mpsc::sync_channel(1);
        let report: Report = Arc::new(move |line| sender.send(line.to_string()).unwrap());
        let config = Notices { webhook, email: None };
        let _courier = start(
            Lanes::of(&config).unwrap(),
            store,
            Clock::fixed(0),
            Arc::new(Metrics::new(0)),
            report,
            Duration::from_secs(1),
        )
        .unwrap();
        let report = reports.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(report.contains("by webhook: timed out after 1 s"), "{report}");
    }
}
