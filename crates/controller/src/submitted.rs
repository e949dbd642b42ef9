//! Hears of jobs at once when they are submitted: slurmctld's job_submit.lua touches
//! a file in the spool. Without that they are found by the next observation.

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// The script runs just before slurmctld has the job in its queue.
const BEFORE_OBSERVING: Duration = Duration::from_millis(10);

/// An observation that came too early is followed by another after this time.
const ONCE_MORE: Duration = Duration::from_millis(200);

/// Makes the file and calls for an observation of Slurm whenever it is touched, until the process
/// ends: on a thread that does nothing else.
pub fn watch(file: &Path, observe: Arc<Notify>) -> io::Result<()> {
    thiao_api::state_dir::own_file(file)?;
    let watcher = inotify::init(CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watcher, file, WatchFlags::CLOSE_WRITE)?;
    std::thread::Builder::new()
        .name("submitted".to_owned())
        .spawn(move || {
            let mut events = [0; 4096];
            while rustix::io::retry_on_intr(|| rustix::io::read(&watcher, &mut events)).is_ok() {
                for pause in [BEFORE_OBSERVING, ONCE_MORE] {
                    std::thread::sleep(pause);
                    observe.notify_one();
                }
            }
        })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_touch_calls_for_an_observation() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("submitted");
        let observe = Arc::new(Notify::new());
        watch(&file, observe.clone()).unwrap();
        for _ in 0..2 {
            // As the script does it.
            std::fs::File::create(&file).unwrap();
            for _ in 0..2 {
                let called = tokio::time::timeout(Duration::from_secs(5), observe.notified()).await;
                assert!(called.is_ok());
            }
        }
        let quiet = tokio::time::timeout(ONCE_MORE * 2, observe.notified()).await;
        assert!(quiet.is_err(), "nobody touched it");
    }

    #[tokio::test]
    async fn a_flood_of_touches_calls_for_few_observations() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("submitted");
        let observe = Arc::new(Notify::new());
        watch(&file, observe.clone()).unwrap();
        let flooding = {
            let file = file.clone();
            tokio::task::spawn_blocking(move || {
                for _ in 0..20_000 {
                    std::fs::File::create(&file).unwrap();
                }
            })
        };
        let (began, mut observations) = (std::time::Instant::now(), 0);
        while !flooding.is_finished() || observations == 0 {
            observations += u32::from(tokio::time::timeout(ONCE_MORE, observe.notified()).await.is_ok());
        }
        let turns = began.elapsed().as_millis() / (BEFORE_OBSERVING + ONCE_MORE).as_millis() + 1;
        assert!(
            u128::from(observations) <= 2 * turns,
            "{observations} observations in {turns} turns"
        );
    }
}
