//! The store: accounts, keys and what has changed, in a database in the data directory.
//!
//! This file has what is stored and the rules for it; `sqlite.rs` has the database. Several processes may have the
//! same data directory open: a server, and commands beside it.

mod sqlite;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::pure::book::Month;
use crate::pure::bounds::Bounds;
use crate::pure::key::{ApiKey, KeyHash};
use crate::pure::notice::Notice;
use crate::pure::plan::Plan;
use crate::pure::record::Place;
use crate::state::tally::Cell;

pub use crate::pure::usage::{ApiUsage, Counts, DAY_S, DayUsage, HOUR_S};
pub use sqlite::Store;

/// An account, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    /// The number it goes by inside.
    pub id: i64,
    /// Its address, in lower case; unique.
    pub email: String,
    /// The name of its plan.
    pub plan: String,
    /// What it was granted beside its plan's credits, and what of that has been charged.
    pub bonus: Bonus,
    /// The latest billing month in which something was charged.
    pub month: Option<Month>,
    /// When it was made; its billing months run from that day.
    pub signed_up_unix_s: u64,
    /// Whether its keys are refused for the time being.
    pub suspended: bool,
}

/// The credits that an account has beside its plan's, as of the last fold: the bonus at sign-up, and every grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bonus {
    /// The sum of all grants.
    pub granted: u64,
    /// What has been charged to it. May be more than `granted`, when what was already spent has been taken back.
    pub used: u64,
}

/// A key, as stored: everything but the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The number it goes by.
    pub id: i64,
    /// Whose it is.
    pub account_id: i64,
    /// The SHA-256 of the key.
    pub hash: KeyHash,
    /// Its first characters.
    pub prefix: String,
    /// Its last four characters.
    pub last_four: String,
    /// What its owner calls it; may be empty.
    pub name: String,
    /// The restrictions on its use.
    pub bounds: Bounds,
    /// When it was made.
    pub created_unix_s: u64,
    /// From when on it is refused, if ever.
    pub expires_unix_s: Option<u64>,
    /// When it was revoked, if it was.
    pub revoked_unix_s: Option<u64>,
    /// The key that took over when it was rotated.
    pub replaced_by: Option<i64>,
    /// When it was last used in a call, as of the last fold.
    pub last_used_unix_s: Option<u64>,
}

impl KeyRow {
    /// Whether the key is good at this moment.
    pub fn is_live(&self, now_unix_s: u64) -> bool {
        self.revoked_unix_s.is_none() && self.expires_unix_s.is_none_or(|expires| now_unix_s < expires)
    }
}

/// A key to be stored.
#[derive(Clone, Debug)]
pub struct NewKey<'a> {
    /// The key; its hash, prefix and last four characters are stored.
    pub key: &'a ApiKey,
    /// What its owner calls it; may be empty.
    pub name: String,
    /// The restrictions on its use.
    pub bounds: Bounds,
    /// From when on it is refused, if ever.
    pub expires_unix_s: Option<u64>,
}

/// What one fold adds to the store, in one transaction.
#[derive(Debug, Default)]
pub struct Fold {
    /// How far the journal has been read; the next fold goes on from there.
    pub folded: Place,
    /// The most that plans have given for months: account, a moment of the month, credits.
    pub ceilings: Vec<(u32, u64, u64)>,
    /// Whether ceilings may be missing, because something of the journal could not be read.
    pub damaged: bool,
    /// What was charged.
    pub charges: HashMap<Cell, Charges, ahash::RandomState>,
    /// Calls that cost nothing.
    pub tally: Vec<(Cell, Counts)>,
    /// Accounts whose plan or grants may have changed.
    pub changed: Vec<i64>,
}

/// The charges of one hour, one key and one API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charges {
    /// Calls.
    pub calls: u64,
    /// Credits of the month.
    pub month: u64,
    /// Credits of the bonus.
    pub bonus: u64,
    /// When the last of them was.
    pub last_unix_s: u64,
}

/// How it is decided who is told what, and by which ways it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoticeRules {
    /// The plans of the configuration.
    pub plans: Vec<Arc<Plan>>,
    /// The ways that are configured.
    pub channels: Vec<Channel>,
}

impl NoticeRules {
    /// The plan of this name, if the configuration defines it.
    pub fn plan(&self, name: &str) -> Option<&Plan> {
        self.plans.iter().map(|plan| &**plan).find(|plan| plan.name == name)
    }
}

/// A way by which notices are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// To the operator's webhook.
    Webhook,
    /// To the account's address.
    Email,
}

impl Channel {
    /// As the store has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Channel::Webhook => "webhook",
            Channel::Email => "email",
        }
    }
}

/// Credits that were given to an account, or taken back, beside its plan's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRow {
    /// The number it goes by.
    pub id: i64,
    /// Whose it is.
    pub account_id: i64,
    /// How many credits; negative where they were taken back. Never zero.
    pub credits: i64,
    /// What tells it from all other grants, of whatever account.
    pub reference: String,
    /// What it is for; may be empty.
    pub note: String,
    /// When it was made.
    pub at_unix_s: u64,
}

/// What became of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The grant as it is stored.
    pub row: GrantRow,
    /// Whether it was there already: then nothing has changed.
    pub repeated: bool,
}

/// The calls of an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HourUsage {
    /// Its first second, as Unix time.
    pub hour_start_unix_s: u64,
    /// Its calls.
    pub counts: Counts,
}

/// The calls with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUsage {
    /// The number of the key.
    pub key_id: i64,
    /// The key; `None` once it is so long gone that it is forgotten.
    pub key: Option<KeyRow>,
    /// The address of its account.
    pub email: String,
    /// Its calls.
    pub counts: Counts,
}

/// The calls of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountUsage {
    /// The number of the account.
    pub account_id: i64,
    /// Its address.
    pub email: String,
    /// Its calls.
    pub counts: Counts,
}

/// That an account was told how much of its month's credits it has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoticeRow {
    /// The threshold that was reached: 80, 95 or 100.
    pub percent: u8,
    /// The credits used in the billing month when that was seen.
    pub used: u64,
    /// The credits of the billing month when that was seen.
    pub max: u64,
    /// When that was seen.
    pub at_unix_s: u64,
}

/// A backup, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The size of the file.
    pub bytes: u64,
    /// Accounts.
    pub accounts: u64,
    /// Keys, those that are no longer good included.
    pub keys: u64,
    /// Credits charged, ever.
    pub credits_used: u64,
}

/// How many rows were forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Of hourly usage.
    pub usage_hours: usize,
    /// Keys.
    pub keys: usize,
    /// Attempts to deliver a notice.
    pub attempts: usize,
    /// Deliveries.
    pub deliveries: usize,
    /// Notices.
    pub notices: usize,
}

/// What has changed since a reader last looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Where to go on from next time.
    pub seq: i64,
    /// The accounts to read again, keys and all; `None` when the reader is too far behind to be told.
    pub accounts: Option<Vec<i64>>,
}

/// A delivery that is to be tried now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueDelivery {
    /// The number it goes by.
    pub id: i64,
    /// What is to be told.
    pub notice: Notice,
    /// How often it has been tried already.
    pub attempts: u32,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// It is to be tried, not before this moment of Unix time.
    Pending {
        /// The moment, in seconds.
        next_attempt_unix_s: u64,
    },
    /// The receiver has it.
    Delivered,
    /// It is not tried any more.
    Abandoned,
}

/// A delivery and all that came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRow {
    /// The number it goes by.
    pub id: i64,
    /// What is told.
    pub notice: Notice,
    /// By which way.
    pub channel: Channel,
    /// Where it stands.
    pub state: DeliveryState,
    /// Its attempts, the oldest first.
    pub attempts: Vec<AttemptRow>,
}

/// One attempt at a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRow {
    /// When it ended.
    pub at_unix_s: u64,
    /// What came of it, in a few words.
    pub outcome: String,
}

/// The longest outcome that is stored, in characters.
pub const OUTCOME_CHARS_MAX: usize = 200;
/// The most deliveries that are listed: the latest.
pub const DELIVERIES_LISTED_MAX: usize = 1_000;

/// The longest e-mail address, in bytes (RFC 5321, section 4.5.3.1.3, less the angle brackets).
pub const EMAIL_BYTES_MAX: usize = 254;
/// The longest name of a key, in characters.
pub const NAME_CHARS_MAX: usize = 100;
/// The most scopes, networks or origins that a key can have of each.
pub const BOUNDS_MAX: usize = 32;
/// The longest scope or origin, in bytes.
pub const BOUND_BYTES_MAX: usize = 255;
/// The most keys of one account that can be good at a time.
pub const KEYS_MAX: usize = 1_000;

/// The most credits that one grant gives or takes back.
pub const GRANT_CREDITS_MAX: u64 = 1_000_000_000_000;
/// The most credits that all grants of an account together can give, what was taken back not deducted.
pub const GRANTS_CREDITS_MAX: u64 = 1_000_000_000_000_000;
/// The longest reference of a grant, in characters.
pub const REFERENCE_CHARS_MAX: usize = 100;
/// The longest note of a grant, in characters.
pub const NOTE_CHARS_MAX: usize = 200;

/// The shortest that a notice is kept, in days from the start of its billing month: well beyond its end.
pub const NOTICE_DAYS_MIN: u64 = 70;

/// Why the store did not do as asked. The texts are meant for people.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The data directory or the database file cannot be made or opened.
    #[error("cannot open the data directory {}: {cause}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The database file cannot be opened, or is none.
    #[error("cannot open the database {}: {cause}", path.display())]
    OpenDatabase {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        cause: rusqlite::Error,
    },
    /// Another server has the data directory.
    #[error("another server has the data directory {}: one at a time can serve it", .0.display())]
    Served(PathBuf),
    /// The database was last used by a later version of the program.
    #[error(
        "the database in {} has version {found}, this program knows versions up to {known}: use a newer polygate",
        path.display()
    )]
    TooNew {
        /// The data directory.
        path: PathBuf,
        /// The version of the database.
        found: usize,
        /// The newest version this program knows.
        known: usize,
    },
    /// The file is no database, or another program's.
    #[error("{} is no Polygate database", .0.display())]
    NotPolygate(PathBuf),
    /// The file is a database that is damaged.
    #[error("{} is damaged: {finding}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite found first.
        finding: String,
    },
    /// The file to restore from is still written to, or was when the machine went down: part of it is in another file.
    #[error("{} has a -wal file beside it, so it is no backup: `polygate backup` makes one", .0.display())]
    NotABackup(PathBuf),
    /// There is a file of that name.
    #[error("{} is there already: --force replaces it", .0.display())]
    BackupExists(PathBuf),
    /// The backup would be in a data directory.
    #[error("{} is in a data directory, and would be lost with it: name a file elsewhere", .0.display())]
    BackupInData(PathBuf),
    /// There is something in the data directory to restore into.
    #[error(
        "the data directory {} already holds {name}: move that away, or name another directory with --data",
        path.display()
    )]
    DataExists {
        /// The data directory.
        path: PathBuf,
        /// What is there.
        name: &'static str,
    },
    /// A file cannot be read or written.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// An account with this address exists.
    #[error("an account with the address {0} already exists")]
    AccountExists(String),
    /// No account has this address.
    #[error("there is no account with the address {0}")]
    NoSuchAccount(String),
    /// What was given is no e-mail address.
    #[error("`{0}` is no e-mail address")]
    InvalidEmail(String),
    /// What was given is too little of a key to tell which one is meant.
    #[error("{0} is too short: a key goes by its number, by at least its first 9 characters or by all of it")]
    KeyTooShort(String),
    /// No key goes by this number, by these first characters or by this text.
    #[error("there is no key {0}")]
    NoSuchKey(String),
    /// Several keys begin with this.
    #[error("several keys begin with {0}; use the number that `polygate keys list` shows")]
    AmbiguousKey(String),
    /// The key is not good any more, so it can be neither revoked nor rotated.
    #[error("key {0} has been revoked or has expired")]
    KeyNotLive(i64),
    /// The key has been rotated already.
    #[error("key {0} has already been replaced by key {1}")]
    KeyReplaced(i64, i64),
    /// The journal speaks of an account, or of a bonus, that the database does not have.
    #[error("the journal has charges of account {0}, which the database does not have: they do not belong together")]
    UnknownInJournal(u32),
    /// A grant is not as it has to be.
    #[error("{0}")]
    InvalidGrant(&'static str),
    /// The reference of a grant is that of another one.
    #[error("the reference {reference} already stands for a grant of {credits} credits to {email}")]
    ReferenceTaken {
        /// The reference.
        reference: String,
        /// The credits of the grant that has it.
        credits: i64,
        /// The account of the grant that has it.
        email: String,
    },
    /// More was to be taken back than is left of what was granted.
    #[error("only {0} are left of the credits that the account was granted")]
    OnlyLeft(u64),
    /// Something is larger or more than is allowed.
    #[error("{0}")]
    TooMuch(&'static str),
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[from] rusqlite::Error),
}
