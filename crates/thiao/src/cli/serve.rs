//! `thiao serve`: logs to standard error, then the controller.

use anyhow::Context as _;
use std::io::IsTerminal as _;
use thiao_config::Config;
use tracing_subscriber::EnvFilter;

pub(super) fn run(config: Config) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .with_env_var("THIAO_LOG")
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .from_env()
        .context("THIAO_LOG is not understood; try debug, or info,thiao::api=debug")?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // The journal has the time already.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init()
    } else {
        log.init()
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no threads for the controller")?
        .block_on(crate::controller::serve(config))
}
