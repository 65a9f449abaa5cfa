//! The command line: what is done for each command, and printed.
//!
//! Results go to standard output, errors to standard error. The exit code is 0 when all is well, 1 when something
//! failed, and 2 when what was typed makes no sense.

mod attempt;
mod commands;
mod handover;
mod serve;
mod show;
mod usage;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use ring::rand::SystemRandom;

use self::commands::{AccountsCommand, Cli, Command, ConfigCommand, CreditsCommand, KeysCommand};
use self::commands::{NoticesCommand, PlansCommand};
use crate::RunError;
use crate::accounts::{self, AccountsError, KeyRequest};
use crate::config::{self, Config, ConfigErrors};
use crate::edge::http::listeners::ListenError;
use crate::edge::http::tls::{Tls, TlsError};
use crate::pure::bounds::Bounds;
use crate::pure::fault::Fault;
use crate::pure::webhook::SigningSecret;
use crate::state::clock::Clock;
use crate::state::folder;
use crate::state::report::Report;
use crate::state::store::{Store, StoreError};

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
