//! The command line: what can be typed, and what is printed for it.
//!
//! Results go to standard output, errors to standard error. The exit code is 0 when all is well, 1 when something
//! failed, and 2 when what was typed makes no sense.

mod attempt;
mod handover;
mod serve;
mod show;
mod usage;

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use ipnet::IpNet;
use ring::rand::SystemRandom;
use zeroize::Zeroizing;

use crate::RunError;
use crate::accounts::{self, AccountsError, Expiry, KeyRequest};
use crate::config::{self, Config, ConfigErrors};
use crate::edge::http::listeners::ListenError;
use crate::edge::http::tls::{Tls, TlsError};
use crate::pure::bounds::{self, Bounds};
use crate::pure::fault::Fault;
use crate::pure::webhook::SigningSecret;
use crate::state::clock::Clock;
use crate::state::folder;
use crate::state::report::Report;
use crate::state::store::{Store, StoreError};

/// A multi-format, content-negotiating API gateway: keys, limits and credits in front of any API, answered as JSON,
/// XML, YAML or CSV.
#[derive(Parser)]
#[command(name = "polygate", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    /// Configuration file [default: the file that POLYGATE_CONFIG names, or built-in values].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Data directory [default: as configured, polygate-data]. Give commands that change what is in it the same --config
    /// (or POLYGATE_CONFIG) as the server: the plans are there.
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer calls until told to stop. The first start makes an account and a key, and prints the key.
    Serve {
        /// Address and port to listen on; may be given more than once [default: as configured, 127.0.0.1:8080].
        #[arg(long, value_name = "ADDR", value_parser = parse_listen)]
        listen: Vec<SocketAddr>,
    },
    /// Make, list, revoke and rotate API keys. Running servers follow within a second.
    #[command(subcommand, arg_required_else_help = true)]
    Keys(KeysCommand),
    /// Make, list and change accounts. Running servers follow within a second.
    #[command(subcommand, arg_required_else_help = true)]
    Accounts(AccountsCommand),
    /// Give accounts credits beside their plan's, and take them back. Running servers follow within a second.
    #[command(subcommand, arg_required_else_help = true)]
    Credits(CreditsCommand),
    /// Show how the APIs were used: calls by how they ended, and credits charged, as a running server last wrote them
    /// down, at most a second ago.
    Usage(usage::Options),
    /// Show one call through an API that has an upstream, step by step: what is sent on, what comes back, and what the caller
    /// would get. Needs no server, asks for no key and charges nobody; the upstream gets a real request.
    Try(attempt::Options),
    /// Follow the notices that accounts get when their credits run out.
    #[command(subcommand, arg_required_else_help = true)]
    Notices(NoticesCommand),
    /// Show the plans of the configuration.
    #[command(subcommand, arg_required_else_help = true)]
    Plans(PlansCommand),
    /// Show or check the configuration.
    #[command(subcommand, arg_required_else_help = true)]
    Config(ConfigCommand),
    /// Write the database into one file, as of one moment, while a server runs or not.
    Backup {
        /// The file, outside the data directory.
        file: PathBuf,
        /// Replace a file that is there.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Make a backup the database of a data directory that has none. What has happened since the backup was made is not
    /// in it: credits charged since are there again, and keys revoked since are good again.
    Restore {
        /// The file that `polygate backup` made.
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Print a completion script: for bash, `polygate completions bash > /etc/bash_completion.d/polygate`.
    Completions {
        /// The shell it is for.
        shell: Shell,
    },
}

// Without `Debug`: what stands for a key may be the key itself.
#[derive(Subcommand)]
enum KeysCommand {
    /// Make a key and print it. It is shown this once: only its hash is stored.
    Create {
        /// Address of the account the key is for, which is made when there is none [default: admin@localhost].
        #[arg(long, value_name = "EMAIL")]
        account: Option<String>,
        /// Plan of an account that is made [default: as configured, free].
        #[arg(long, value_name = "NAME")]
        plan: Option<String>,
        /// What to call the key.
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        name: String,
        /// When the key expires: 12h, 30d, 2026-12-31, 2026-12-31T18:00:00Z [default: never].
        #[arg(long, value_name = "WHEN")]
        expires: Option<Expiry>,
        /// An API the key may call (analytics: what its account has used); repeat for more [default: all].
        #[arg(long = "scope", value_name = "API")]
        scopes: Vec<String>,
        /// A network the key may be used from; repeat for more [default: all].
        #[arg(long = "network", value_name = "CIDR", value_parser = bounds::parse_network)]
        networks: Vec<IpNet>,
        /// A browser origin the key may be used from; repeat for more [default: all].
        #[arg(long = "origin", value_name = "ORIGIN", value_parser = bounds::parse_origin)]
        origins: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// List keys, those that are no longer good included.
    List {
        /// Only those of the account with this address.
        #[arg(long, value_name = "EMAIL")]
        account: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Refuse a key from now on, for good.
    Revoke {
        /// The key's number, at least its first 9 characters, what `keys list` shows of it, or the whole key.
        #[arg(value_name = "KEY", value_parser = wiped)]
        which: Zeroizing<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Make a key that takes over from another, and print it. The old one stays good for a while.
    Rotate {
        /// The old key's number, at least its first 9 characters, what `keys list` shows of it, or the whole key.
        #[arg(value_name = "KEY", value_parser = wiped)]
        which: Zeroizing<String>,
        /// How long the old key stays good [default: 24h].
        #[arg(long, value_name = "TIME", value_parser = accounts::parse_duration)]
        grace: Option<u64>,
        /// When the new key expires [default: when the old one would have].
        #[arg(long, value_name = "WHEN")]
        expires: Option<Expiry>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
enum AccountsCommand {
    /// Make an account.
    Create {
        /// Its address.
        email: String,
        /// Its plan [default: as configured, free].
        #[arg(long, value_name = "NAME")]
        plan: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// List all accounts.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Show where an account stands: its billing month, credits, keys and calls, as a running server last wrote them
    /// down, at most a second ago.
    Show {
        /// Its address.
        email: String,
        #[command(flatten)]
        output: Output,
    },
    /// Put an account on another plan.
    SetPlan {
        /// Its address.
        email: String,
        /// The plan.
        plan: String,
        #[command(flatten)]
        output: Output,
    },
    /// Refuse an account's keys until it is resumed.
    Suspend {
        /// Its address.
        email: String,
        #[command(flatten)]
        output: Output,
    },
    /// Let a suspended account's keys in again.
    Resume {
        /// Its address.
        email: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
enum CreditsCommand {
    /// Give an account credits, which are spent before its month's and stay good until they are spent; or take back
    /// what is left of them.
    Grant {
        /// The account's address.
        email: String,
        /// How many; a negative number takes back.
        #[arg(allow_negative_numbers = true)]
        credits: i64,
        /// What tells this grant from others, such as the number of an invoice: repeating a grant with its reference
        /// changes nothing, so that it is safe to try again [default: a random one].
        #[arg(long, value_name = "TEXT")]
        reference: Option<String>,
        /// What it is for.
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        note: String,
        #[command(flatten)]
        output: Output,
    },
    /// List what an account was granted, the bonus at sign-up included.
    List {
        /// The account's address.
        email: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
enum NoticesCommand {
    /// List the latest 1,000 deliveries of notices and what came of them; with --json, of every attempt.
    List {
        /// Only those to the account with this address.
        #[arg(long, value_name = "EMAIL")]
        account: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Print a new secret to sign webhooks with. It is stored nowhere: give it to the configuration and the receiver.
    Secret,
}

#[derive(Debug, Subcommand)]
enum PlansCommand {
    /// List all plans.
    List {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the default configuration with a comment for every key, to start a file from.
    Print,
    /// Read the configuration and name every mistake in it.
    Check,
}

#[derive(Clone, Copy, Debug, Args)]
struct Output {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    HandOver(#[from] handover::HandOverError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the call fails with {} ({})", .0.status(), .0.code())]
    Call(Fault),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Does what the arguments say, and tells how it went.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, to standard output and with code 0.
            let printed = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { printed.is_err().into() });
        }
    };
    match execute(cli, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print_error(&format!("polygate: {failure}\n"));
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli, arguments: Vec<OsString>) -> Result<(), Failure> {
    let options = Options { arguments, config: cli.config, data: cli.data, listen: Vec::new() };
    let load = || options.load();
    let text = match cli.command {
        Command::Serve { listen } => return serve::serve(Options { listen, ..options }),
        Command::Keys(command) => keys(&load()?, command)?,
        Command::Accounts(command) => accounts(&load()?, command)?,
        Command::Credits(command) => credits(&load()?, command)?,
        Command::Usage(options) => usage::show(&settled(&load()?)?, &options, Clock::system().unix_s())?,
        Command::Try(options) => {
            let (steps, fault) = attempt::attempt(&load()?, &options, &Clock::system())?;
            print(&steps)?;
            return fault.map_or(Ok(()), |fault| Err(Failure::Call(fault)));
        }
        Command::Notices(NoticesCommand::List { account, output }) => {
            let store = Store::open_existing(&load()?.data)?;
            let account_id = account.map(|email| store.account(&email)).transpose()?.map(|account| account.id);
            show::deliveries(&store.list_deliveries(account_id)?, output.json)
        }
        Command::Notices(NoticesCommand::Secret) => signing_secret()?,
        Command::Plans(PlansCommand::List { output }) => show::plans(&load()?, output.json),
        Command::Config(ConfigCommand::Print) => config::DEFAULT_YAML.to_owned(),
        Command::Config(ConfigCommand::Check) => {
            let config = load()?;
            config.tls.as_ref().map(Tls::load).transpose()?;
            attempt::catalog(&config, &Clock::system())?;
            "The configuration has no mistakes.\n".to_owned()
        }
        Command::Backup { file, force, output } => {
            let backup = settled(&load()?)?.backup(&file, force)?;
            show::backup(&format!("The backup {}", file.display()), &backup, output.json)
        }
        Command::Restore { file, output } => {
            let data = load()?.data;
            let (_, backup) = Store::restore(&file, &data)?;
            show::backup(
                &format!("The data directory {}, restored from {}", data.display(), file.display()),
                &backup,
                output.json,
            )
        }
        Command::Completions { shell } => completions(shell),
    };
    Ok(print(&text)?)
}

/// What was typed, and goes before what the configuration says.
#[derive(Clone)]
struct Options {
    /// All of it, the name of the program first.
    arguments: Vec<OsString>,
    config: Option<PathBuf>,
    data: Option<PathBuf>,
    listen: Vec<SocketAddr>,
}

impl Options {
    /// The file of the configuration, if there is one.
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
    fn file(&self) -> Option<PathBuf> {
        let named = || std::env::var_os("POLYGATE_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
        self.config.clone().or_else(named)
    }

    /// The configuration: file, environment, and these over both.
    fn load(&self) -> Result<Config, ConfigErrors> {
        Ok(self.over(Config::load(self.file().as_deref(), environment())?))
    }

    /// The same for a program that serves already.
    fn reload(&self) -> Result<Config, ConfigErrors> {
        Ok(self.over(Config::reload(self.file().as_deref(), environment())?))
    }

    fn over(&self, config: Config) -> Config {
        let listen = if self.listen.is_empty() { config.listen } else { self.listen.clone() };
        Config { listen, data: self.data.clone().unwrap_or(config.data), ..config }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
fn environment() -> impl Iterator<Item = (String, String)> {
    // What is not Unicode becomes something no key or value looks like, and is reported as a mistake.
    let text = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// Where commands tell of trouble: standard error.
fn reporter() -> Report {
    Arc::new(|message: &dyn Display| print_error(&format!("polygate: {message}\n")))
}

/// The store with all that has been charged, also by a server that was killed. Where that cannot be added, as on a full
/// disk, the operator is told, and what there is has to do.
fn settled(config: &Config) -> Result<Store, Failure> {
    let mut store = Store::open_existing(&config.data)?;
    let report = reporter();
    if let Err(error) = folder::settle(&config.data, &mut store, &Clock::system(), &report) {
        report(&format_args!("what a server charged last is not included: {error}"));
    }
    Ok(store)
}

fn keys(config: &Config, command: KeysCommand) -> Result<String, Failure> {
    let now_unix_s = Clock::system().unix_s();
    let existing = || Store::open_existing(&config.data);
    Ok(match command {
        KeysCommand::Create { account, plan, name, expires, scopes, networks, origins, output } => {
            let scopes = accounts::scopes(config, scopes)?;
            let bounds = Bounds { scopes: some(scopes), networks: some(networks), origins: some(origins) };
            let request = KeyRequest { account, plan, name, expires, bounds };
            let mut store = Store::open(&config.data)?;
            show::created(&accounts::create_key(&mut store, config, request, now_unix_s)?, output.json)
        }
        KeysCommand::List { account, output } => {
            show::keys(&accounts::list_keys(&existing()?, account.as_deref())?, now_unix_s, output.json)
        }
        KeysCommand::Revoke { which, output } => {
            let (key, account) = accounts::revoke_key(&mut existing()?, &which, now_unix_s)?;
            show::revoked(&key, &account, output.json)
        }
        KeysCommand::Rotate { which, grace, expires, output } => {
            let grace_s = grace.unwrap_or(accounts::DEFAULT_GRACE_S);
            show::created(&accounts::rotate_key(&mut existing()?, &which, grace_s, expires, now_unix_s)?, output.json)
        }
    })
}

fn accounts(config: &Config, command: AccountsCommand) -> Result<String, Failure> {
    let now_unix_s = Clock::system().unix_s();
    let existing = || Store::open_existing(&config.data);
    let (account, output) = match command {
        AccountsCommand::List { output } => return Ok(show::accounts(&existing()?.list_accounts()?, output.json)),
        AccountsCommand::Show { email, output } => {
            return Ok(show::standing(
                &accounts::standing(&settled(config)?, config, &email, now_unix_s)?,
                output.json,
            ));
        }
        AccountsCommand::Create { email, plan, output } => {
            let mut store = Store::open(&config.data)?;
            (accounts::create_account(&mut store, config, &email, plan.as_deref(), now_unix_s)?, output)
        }
        AccountsCommand::SetPlan { email, plan, output } => {
            (accounts::set_plan(&mut existing()?, config, &email, &plan, now_unix_s)?, output)
        }
        AccountsCommand::Suspend { email, output } => (existing()?.set_suspended(&email, true, now_unix_s)?, output),
        AccountsCommand::Resume { email, output } => (existing()?.set_suspended(&email, false, now_unix_s)?, output),
    };
    Ok(show::account(&account, output.json))
}

fn credits(config: &Config, command: CreditsCommand) -> Result<String, Failure> {
    let now_unix_s = Clock::system().unix_s();
    let mut store = settled(config)?;
    Ok(match command {
        CreditsCommand::Grant { email, credits, reference, note, output } => {
            let granted = accounts::grant(&mut store, &email, credits, reference, &note, now_unix_s)?;
            show::granted(&granted, &store.account(&email)?, output.json)
        }
        CreditsCommand::List { email, output } => {
            show::grants(&store.list_grants(store.account(&email)?.id)?, output.json)
        }
    })
}

/// Not in memory that is wiped: it is about to stand on a terminal or in a pipe.
fn signing_secret() -> Result<String, Failure> {
    let secret = SigningSecret::generate(&SystemRandom::new()).map_err(|_| AccountsError::NoRandomness)?;
    Ok(format!("{}\n", *secret))
}

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "polygate", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("must be {}", config::LISTEN_WANTED))
}

/// What may be a key, in memory that is wiped afterwards.
fn wiped(text: &str) -> Result<Zeroizing<String>, Infallible> {
    Ok(Zeroizing::new(text.to_owned()))
}

/// An option that was not given restricts nothing.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[expect(clippy::disallowed_methods, reason = "this is where results are printed")]
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Where the log goes.
#[expect(clippy::disallowed_methods, reason = "this is where the log is printed")]
fn standard_error() -> io::Stderr {
    io::stderr()
}

#[expect(clippy::disallowed_methods, reason = "this is where errors are printed")]
fn print_error(text: &str) {
    // When even that fails, the exit code has to do.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }
}
