//! The controller: observe, plan, lint, execute, round after round.
//!
//! One task (`owner`) owns all state. Observers (`observe`) and actions (`execute`)
//! run beside it and report by messages; hooks, guests and timers only wake it.
//!
//! *Architecture invariants:* a round is on disk before anything of it is
//! executed; nothing that executes decides.

mod addresses;
mod answer;
pub mod api;
mod bus;
mod clock;
mod deeds;
mod demand;
mod ends;
mod execute;
mod intake;
pub mod memory;
mod message;
mod newcomers;
mod observe;
mod owner;
pub mod provider;
mod publish;
mod readers;
mod receive;
mod snapshot;
mod start;
pub mod store;
mod submitted;

use anyhow::Context;
use owner::DISK_ADVICE;
use provider::Provider;
use readers::{Desk, READERS};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiao_api::state_dir;
use thiao_config::{Config, ProviderSettings};
use thiao_slurm::Slurm;
use tokio::sync::{Notify, mpsc};

/// Questions that may wait before askers are told to come again.
const QUERY_BACKLOG: usize = 256;

/// Runs the controller with the configured provider until it is told to stop. VMs go on without it.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    make_state_dir(&config.state_dir)?;
    let _lock = lock(&config.state_dir).await?;
    let vms_changed = Arc::new(Notify::new());
    let wake = {
        let vms_changed = vms_changed.clone();
        Arc::new(move || vms_changed.notify_one()) as Arc<dyn Fn() + Send + Sync>
    };
    match &config.provider {
        ProviderSettings::Qemu(settings) => {
            let qemu =
                thiao_qemu::Qemu::open(settings.clone(), wake).context("the QEMU provider cannot start")?;
            run(&config, Arc::new(qemu), vms_changed).await
        }
        ProviderSettings::OpenNebula(settings) => {
            let opennebula = thiao_opennebula::OpenNebula::open(settings.clone())
                .context("the OpenNebula provider cannot start")?;
            opennebula
                .listen(wake)
                .context("there can be no thread that listens to OpenNebula's events")?;
            run(&config, Arc::new(opennebula), vms_changed).await
        }
    }
}

/// The same with any provider: `vms_changed` is how it says that an observation is worth while.
pub async fn serve_with<P: Provider>(
    config: Config,
    provider: Arc<P>,
    vms_changed: Arc<Notify>,
) -> anyhow::Result<()> {
    make_state_dir(&config.state_dir)?;
    let _lock = lock(&config.state_dir).await?;
    run(&config, provider, vms_changed).await
}

async fn run<P: Provider>(config: &Config, provider: Arc<P>, vms_changed: Arc<Notify>) -> anyhow::Result<()> {
    let slurm = Slurm::new(
        config.slurm.conf.clone(),
        config.slurm.bin_dir.clone(),
        config.slurm.timeout,
    )
    .with_nodes(Arc::new(config.nodes.keys().cloned().collect()))
    .with_job_nodes(Arc::new(config.job_nodes()));
    let (queries, asked) = mpsc::channel(QUERY_BACKLOG);
    let owner = owner::Owner::open(config, provider, slurm, vms_changed)?;
    let (demands, demanded) = mpsc::channel(QUERY_BACKLOG);
    let readers: Vec<_> = (0..READERS).map(|_| owner.reader()).collect::<Result<_, _>>()?;
    let desk = Desk::start(readers, owner.shown.clone(), demands)
        .context("the threads that answer people cannot be started")?;
    tokio::spawn(desk.run(asked));
    let socket = config.state_dir.join(thiao_api::SOCKET);
    let server = tokio::spawn(api::server::serve(socket.clone(), queries));
    // Fails only when systemd did not start us.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(cluster = %config.cluster, state_dir = %config.state_dir.display(), "thiaod is up");

    tokio::select! {
        result = owner.run(demanded) => result?,
        result = server => result.context("the API's task ended")?.context("the API cannot be served")?,
        signal = stop_signal() => tracing::info!(signal, "told to stop; VMs go on running"),
    }
    let _ = std::fs::remove_file(socket);
    Ok(())
}

fn make_state_dir(state_dir: &Path) -> anyhow::Result<()> {
    state_dir::make(state_dir)
        .with_context(|| format!("the state folder {} cannot be used", state_dir.display()))?;
    for (above, trouble) in state_dir::exposed_above(state_dir, state_dir::own_uid()) {
        tracing::warn!(
            "the state folder is not safe in {}: {trouble}; {}",
            above.display(),
            trouble.remedy(&above)
        );
    }
    Ok(())
}

/// How long the lock of a controller that has ended may still be held: a child that it was about to start, one of
/// Slurm's programs, has it until its own program begins.
const LOCK_LINGERS: Duration = Duration::from_secs(5);

/// One controller per state folder: the second refuses.
async fn lock(state_dir: &Path) -> anyhow::Result<File> {
    let path = state_dir.join("lock");
    let file = state_dir::own_file(&path)
        .with_context(|| format!("{} cannot be written. {DISK_ADVICE}", path.display()))?;
    let began = Instant::now();
    let mut locked = file.try_lock();
    while matches!(locked, Err(std::fs::TryLockError::WouldBlock)) && began.elapsed() < LOCK_LINGERS {
        tokio::time::sleep(Duration::from_millis(20)).await;
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => anyhow::bail!(
            "another thiaod uses the state folder {}: stop it first (`systemctl stop thiaod`), or give this one another state_dir",
            state_dir.display()
        ),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", path.display()))
        }
    }
}

async fn stop_signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut stream) => {
                stream.recv().await;
            }
            // Without the handler the signal ends the process by itself.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => "SIGTERM",
        () = wait(SignalKind::interrupt()) => "SIGINT",
    }
}
