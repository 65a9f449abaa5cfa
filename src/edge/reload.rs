//! Another configuration while serving goes on: noticed here, and given to every part that goes by one.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ring::digest::{SHA256, digest};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use crate::RunError;
use crate::config::{self, Config, ConfigErrors};
use crate::edge::http::serve::allow_files;
use crate::edge::notices::{self, Lanes};
use crate::gateway::Current;
use crate::pure::steady::Steady;
use crate::service::upstream::checks;
use crate::state::background::{self, Background};
use crate::state::events::PROGRAM;
use crate::state::folder::Settings;
use crate::state::report::Report;
use crate::state::store::Store;

/// Where the configuration comes from.
pub struct Source {
    file: Option<PathBuf>,
    reload: Box<dyn Fn() -> Result<Config, ConfigErrors> + Send>,
    asker: Asker,
    asked: mpsc::Receiver<Option<oneshot::Sender<Outcome>>>,
    /// What has been in the file; nothing where it cannot be read, or only once.
    content: Steady<Option<Digest>>,
}

type Digest = [u8; 32];

impl Source {
    /// A source that `reload` reads when `file` has changed or when its [`Asker`] says so. What is no regular file is never
    /// looked at.
    ///
    /// To be made before the configuration is loaded that is served with at first: what changes after that counts.
    pub fn new(file: Option<PathBuf>, reload: impl Fn() -> Result<Config, ConfigErrors> + Send + 'static) -> Source {
        let content = Steady::new(look(&file));
        let (asker, asked) = mpsc::channel(ASKED_MAX);
        Source { file, reload: Box::new(reload), asker: Asker(asker), asked, content }
    }

    /// What has it read.
    pub fn asker(&self) -> Asker {
        self.asker.clone()
    }
}

/// Has a configuration read again, by a server that follows its [`Source`].
#[derive(Clone)]
pub struct Asker(mpsc::Sender<Option<oneshot::Sender<Outcome>>>);

impl Asker {
    /// Waits for nothing.
    pub fn ask(&self) {
        // Where it is full, the file is still to be read for others.
        let _ = self.0.try_send(None);
    }

    /// Waits for what comes of it; `None` if nobody follows the source any more.
    pub async fn outcome(&self) -> Option<Outcome> {
        let (done, outcome) = oneshot::channel();
        self.0.send(Some(done)).await.ok()?;
        outcome.await.ok()
    }
}

/// What came of reading a configuration again.
pub type Outcome = Result<Reloaded, NotReloaded>;

/// Another configuration is in force.
#[derive(Debug)]
pub struct Reloaded {
    /// The keys that are other than before.
    pub changed: Vec<String>,
    /// The keys that wait for the next start.
    pub waiting: Vec<&'static str>,
}

/// The configuration in use stays.
#[derive(Debug)]
pub enum NotReloaded {
    /// There are mistakes in the other one, each with its key.
    Mistakes(Vec<String>),
    /// It could not be taken over.
    Failed(RunError),
}

fn look(file: &Option<PathBuf>) -> Option<Digest> {
    let content = config::content(file.as_ref()?).ok()?;
    Some(digest(&SHA256, &content).as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// The parts of a server that go by the configuration.
pub struct Reloader {
    current: Arc<Current>,
    folding: Arc<ArcSwap<Settings>>,
    courier: Option<Background>,
    checks: Option<Background>,
    report: Report,
}

impl Reloader {
    /// Those behind `current`, and at work a courier and the checks of targets. `report` is told of trouble. Fails when the system refuses a thread.
    pub fn start(current: Arc<Current>, folding: Arc<ArcSwap<Settings>>, report: Report) -> Result<Reloader, RunError> {
        let gateway = current.load_full();
        let (lanes, store) = (Lanes::of(&gateway.config.notices)?, Store::open(&gateway.config.data)?);
        let (clock, metrics) = (gateway.clock.clone(), gateway.metrics.clone());
        let courier = notices::watch(lanes, store, clock, metrics, report.clone())?;
        let checks = checks::watch(gateway.catalog.upstreams(), report.clone())?;
        Ok(Reloader { current, folding, courier, checks, report })
    }

    /// Has all parts go by `config` from now on: calls that have begun end as they began. Returns the keys that wait for the
    /// next start.
    ///
    /// # Errors
    /// When the database cannot be read, or a channel or an API not be made. Nothing has changed then.
    pub fn reload(&mut self, config: Config) -> Result<Vec<&'static str>, RunError> {
        let before = self.current.load_full();
        let (config, waiting) = config.in_place_of(&before.config);
        let lanes = Lanes::of(&config.notices)?;
        let mut store = Store::open(&config.data)?;
        let numbers = store.api_numbers(config.apis.names())?;
        let catalog = before.catalog.under(&config, &numbers, &before.metrics, &before.clock)?;
        before.keyring.set_plans(&store, &config.plans)?;
        before.log.set(config.logs);
        if config.limits.connections > before.config.limits.connections {
            allow_files(config.limits.connections);
        }
        self.folding.store(Arc::new(Settings::of(&config, notices::channels(&config.notices))));
        let gateway = Arc::new(before.under(config, catalog));
        self.current.store(gateway.clone());
        drop(self.checks.take());
        match checks::watch(gateway.catalog.upstreams(), self.report.clone()) {
            Ok(checks) => self.checks = checks,
            Err(error) => (self.report)(&format_args!("health checks wait for the next start: {error}")),
        }
        if gateway.config.notices != before.config.notices {
            // Ends before its successor begins: two would deliver everything twice.
            drop(self.courier.take());
            let (clock, metrics) = (gateway.clock.clone(), gateway.metrics.clone());
            match notices::watch(lanes, store, clock, metrics, self.report.clone()) {
                Ok(courier) => self.courier = courier,
                Err(error) => (self.report)(&format_args!("notices wait for the next start: {error}")),
            }
        }
        Ok(waiting)
    }

    /// Reads the configuration again, and tells the operator what came of it.
    fn follow(&mut self, source: &Source) -> Outcome {
        let before = self.current.load_full();
        let outcome = match (source.reload)() {
            Ok(config) => self
                .reload(config)
                .map_err(NotReloaded::Failed)
                .map(|waiting| Reloaded { changed: self.current.load().config.changed_from(&before.config), waiting }),
            Err(errors) => Err(NotReloaded::Mistakes(errors.mistakes().to_vec())),
        };
        match &outcome {
            Ok(Reloaded { waiting, .. }) if waiting.is_empty() => {
                info!(target: PROGRAM, "configuration reloaded");
            }
            Ok(Reloaded { waiting, .. }) => {
                let keys = waiting.join(", ");
                (self.report)(&format_args!("configuration reloaded; what waits for the next start: {keys}"));
            }
            // A line of the log is one line.
            Err(NotReloaded::Mistakes(mistakes)) => (self.report)(&format_args!(
                "the configuration in use stays: the configuration has mistakes: {}",
                mistakes.join("; ")
            )),
            Err(NotReloaded::Failed(error)) => {
                (self.report)(&format_args!("the configuration in use stays: {error}"));
            }
        }
        outcome
    }
}

/// Follows `source` from a thread of its own, until the [`Background`] is dropped, and the courier with it. Fails when the
/// system refuses one.
pub fn watch(mut source: Source, mut reloader: Reloader) -> io::Result<Background> {
    background::start("configuration", move || async move {
        let mut looks = interval(INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // The source has an asker of its own: there is always one.
                Some(waiting) = source.asked.recv() => {
                    // Nobody is in the midst of writing a file of which they say that it can be read.
                    source.content = Steady::new(look(&source.file));
                    let outcome = reloader.follow(&source);
                    if let Some(waiting) = waiting {
                        // Who has asked may have gone.
                        let _ = waiting.send(outcome);
                    }
                }
                _ = looks.tick() => if source.content.takes(look(&source.file)) {
                    // The operator has been told.
                    let _ = reloader.follow(&source);
                }
            }
        }
    })
}

/// How many may wait for a configuration to be read.
const ASKED_MAX: usize = 32;

/// How often the file is looked at. It counts when two looks have found the same.
const INTERVAL: Duration = Duration::from_secs(1);
