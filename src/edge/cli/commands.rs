//! What can be typed: the commands and their options, with the help for each.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use ipnet::IpNet;
use zeroize::Zeroizing;

use super::{attempt, usage};
use crate::accounts::{self, Expiry};
use crate::config;
use crate::pure::bounds;

/// A multi-format, content-negotiating API gateway: keys, limits and credits in front of any API, answered as JSON,
/// XML, YAML or CSV.
#[derive(Parser)]
#[command(name = "polygate", version, propagate_version = true, arg_required_else_help = true)]
pub(super) struct Cli {
    /// Configuration file [default: the file that POLYGATE_CONFIG names, or built-in values].
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Data directory [default: as configured, polygate-data]. Give commands that change what is in it the same --config
    /// (or POLYGATE_CONFIG) as the server: the plans are there.
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
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
pub(super) enum KeysCommand {
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
pub(super) enum AccountsCommand {
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
pub(super) enum CreditsCommand {
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
pub(super) enum NoticesCommand {
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
pub(super) enum PlansCommand {
    /// List all plans.
    List {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the default configuration with a comment for every key, to start a file from.
    Print,
    /// Read the configuration and name every mistake in it.
    Check,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Output {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("must be {}", config::LISTEN_WANTED))
}

/// What may be a key, in memory that is wiped afterwards.
fn wiped(text: &str) -> Result<Zeroizing<String>, Infallible> {
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }
}
