//! Another configuration while serving goes on: noticed here, and given to every part that goes by one.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ring::digest::{SHA256, digest};
use tokio::sync::Notify;
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
    asked: Arc<Notify>,
    /// What has been in the file; nothing where it cannot be read, or only once.
    content: Steady<Option<Digest>>,
}

type Digest = [u8; 32];

impl Source {
    /// A source that `reload` reads when `file` has changed or when it is `asked`. What is no regular file is never looked at.
    ///
    /// To be made before the configuration is loaded that is served with at first: what changes after that counts.
    pub fn new(
        file: Option<PathBuf>,
        reload: impl Fn() -> Result<Config, ConfigErrors> + Send + 'static,
        asked: Arc<Notify>,
    ) -> Source {
        let content = Steady::new(look(&file));
        Source { file, reload: Box::new(reload), asked, content }
    }
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
    fn follow(&mut self, source: &Source) {
        let reloaded = match (source.reload)() {
            Ok(config) => self.reload(config).map_err(|error| error.to_string()),
            // A line of the log is one line.
            Err(errors) => Err(format!("the configuration has mistakes: {}", errors.mistakes().join("; "))),
        };
        match reloaded {
            Ok(waiting) if waiting.is_empty() => {
                info!(target: PROGRAM, "configuration reloaded");
            }
            Ok(waiting) => {
                let keys = waiting.join(", ");
                (self.report)(&format_args!("configuration reloaded; what waits for the next start: {keys}"));
            }
            Err(error) => (self.report)(&format_args!("the configuration in use stays: {error}")),
        }
    }
}

/// Follows `source` from a thread of its own, until the [`Background`] is dropped, and the courier with it. Fails when the
/// system refuses one.
pub fn watch(mut source: Source, mut reloader: Reloader) -> io::Result<Background> {
    background::start("configuration", move || async move {
        let mut looks = interval(INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let asked = source.asked.clone();
        loop {
            tokio::select! {
                () = asked.notified() => {
                    // Nobody is in the midst of writing a file of which they say that it can be read.
                    source.content = Steady::new(look(&source.file));
                    reloader.follow(&source);
                }
                _ = looks.tick() => if source.content.takes(look(&source.file)) {
                    reloader.follow(&source);
                }
            }
        }
    })
}

/// How often the file is looked at. It counts when two looks have found the same.
const INTERVAL: Duration = Duration::from_secs(1);
