//! The program `thiaod`, which `thiao serve` runs: logs to standard error, then the controller.

use anyhow::Context as _;
use clap::Parser;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use thiao_cli::exit;
use thiao_config::Config;
use tracing_subscriber::EnvFilter;

/// Run the controller of Thiao
#[derive(Debug, Parser)]
#[command(
    name = "thiaod",
    version,
    after_help = "\
Environment:
  THIAO_CONFIG  the settings file, as --config
  THIAO_LOG     what is logged, e.g. debug or info,thiao_controller::api=debug"
)]
struct Cli {
    /// The settings file [default: /etc/thiao/thiao.toml]
    #[arg(long, env = "THIAO_CONFIG", hide_env = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(ended) = thiao_nfs::called(&args) {
        return ended;
    }
    match exit::parse::<Cli>(args) {
        Ok(cli) => exit::ended(run(&cli).map(|()| ExitCode::SUCCESS), |_| None),
        Err(code) => code,
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let config = Config::load(cli.config.as_deref())?;
    let filter = EnvFilter::builder()
        .with_env_var("THIAO_LOG")
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .from_env()
        .context("THIAO_LOG is not understood; try debug, or info,thiao_controller::api=debug")?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would be told of by a panic: a full disk that holds the log is no reason to end.
        .log_internal_errors(false);
    // The journal has the time already.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init()
    } else {
        log.init()
    }
    thiao_controller::memory::few_arenas();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no threads for the controller")?
        .block_on(thiao_controller::serve(config))
}
