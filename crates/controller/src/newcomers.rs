//! Users whose jobs come to VMs: guests that were not made for them are told of them before the jobs start, which wait
//! for that in their prologs, and remove what earlier jobs left. Whose working directory the VMs do not see is told so.

use crate::api::{ApiError, Reply};
use crate::message::Message;
use crate::provider::{Provider, ProviderError, Welcome};
use std::path::PathBuf;
use std::sync::Arc;
use thiao_core::event::{Event, Kind, Subject};
use thiao_core::ids::{JobId, Time, VmId, VmTag};
use thiao_core::options::unshared_comment;
use thiao_core::prolog::Leftovers;
use thiao_slurm::Slurm;
use tokio::sync::mpsc;

/// Guests that are told at once: each may have to mount a folder.
const AT_ONCE: usize = 16;

/// A prolog that waits for its job's VMs.
pub struct Waiter {
    pub job: JobId,
    pub since: Time,
    /// Where the job runs, as its prolog says.
    pub work_dir: Option<PathBuf>,
    pub reply: Reply<()>,
}

impl Waiter {
    /// Whether it waits for this job, since then.
    pub fn is(&self, job: JobId, since: Time) -> bool {
        (self.job, self.since) == (job, since)
    }
}

/// A job that starts, whose it is, and its VMs.
pub struct Newcomer {
    pub job: JobId,
    pub uid: u32,
    pub vms: Vec<Stop>,
    pub work_dir: Option<PathBuf>,
    /// What people read in its `AdminComment` now.
    pub comment: Option<String>,
}

/// One of the VMs.
pub struct Stop {
    pub tag: VmTag,
    pub id: Option<VmId>,
    /// What becomes of what others left there; none: nobody else was there, and it knows the user.
    pub shared: Option<Leftovers>,
}

/// By what newcomers are looked after.
type Means<P> = (Arc<P>, Arc<Slurm>, mpsc::Sender<Message>);

impl Newcomer {
    /// Has all guests know him, away from the owner's task, and then answers those who wait for the job's start. A job
    /// whose user cannot be handed over goes back into the queue: in the guest it would fail, or lose its output.
    pub fn welcome<P: Provider>(self, (provider, slurm, messages): Means<P>, waiters: Vec<Reply<()>>) {
        let job = self.job;
        tokio::spawn(async move {
            let to_owner = messages.clone();
            let told = tokio::task::spawn_blocking(move || {
                self.tell(&*provider, &to_owner)?;
                Ok::<_, ProviderError>(self.warn(&*provider, &slurm))
            })
            .await;
            let answer = match told {
                Ok(Ok(event)) => {
                    if let Some(event) = event {
                        // The owner is gone only when the controller ends.
                        let _ = messages.send(Message::Event(event)).await;
                    }
                    Ok(())
                }
                Ok(Err(error)) => {
                    let text = format!(
                        "back in the queue: its user is not known in its VMs: {}",
                        error.text
                    );
                    let event = Event::new(Subject::Job(job), Kind::JobPutBack, text);
                    // An owner that has ended tells nobody any more.
                    let _ = messages.send(Message::Event(event)).await;
                    Err(ApiError::Conflict(error.text))
                }
                Err(error) => Err(ApiError::Internal(error.to_string())),
            };
            for waiter in waiters {
                // An asker that has left is no error.
                drop(waiter.send(answer.clone()));
            }
        });
    }

    /// Tells all guests, and the owner which of them did not answer.
    fn tell<P: Provider>(&self, provider: &P, owner: &mpsc::Sender<Message>) -> Result<(), ProviderError> {
        for some in self.vms.chunks(AT_ONCE) {
            let told: Vec<(&VmTag, Welcome)> = std::thread::scope(|scope| {
                let shared = some.iter().filter_map(|stop| Some((stop, stop.shared?)));
                let threads: Vec<_> = shared
                    .map(|(Stop { tag, id, .. }, leftovers)| {
                        scope.spawn(move || (tag, provider.welcome(tag, id.as_ref(), self.uid, leftovers)))
                    })
                    .collect();
                threads
                    .into_iter()
                    .filter_map(|thread| thread.join().ok())
                    .collect()
            });
            for (tag, _) in told.iter().filter(|(_, welcome)| welcome.unheard) {
                // An owner that has ended ends no VM.
                let _ = owner.blocking_send(Message::Unheard((*tag).clone()));
            }
            let mut told = told.into_iter();
            told.try_for_each(|(_, welcome)| welcome.told)
                .inspect_err(|error| {
                    tracing::warn!(uid = self.uid, %error, "a job's user is not handed to its VMs");
                })?;
        }
        Ok(())
    }

    /// Tells the job, once, if a VM does not see the folder where it runs: what it writes there would be lost in
    /// silence. The job starts all the same.
    fn warn<P: Provider>(&self, provider: &P, slurm: &Slurm) -> Option<Event> {
        let folder = self.work_dir.as_ref()?;
        let sees = |stop: &&Stop| provider.sees(&stop.tag, stop.id.as_ref(), folder);
        let blind = self.vms.iter().find(|stop| sees(stop) == Some(false))?;
        let text = format!(
            "its working directory {} is not shared with its VM {}.{}: what it writes there is lost with the VM. Submit \
             from a shared folder (--chdir); an administrator shares folders by [[mount]] of thiao.toml",
            folder.display(),
            blind.tag.node,
            blind.tag.generation
        );
        let comment = unshared_comment(self.comment.as_deref(), &text)?;
        if let Err(error) = slurm.comment(self.job, &comment) {
            tracing::warn!(job = %self.job, %error, "the job could not be told that its folder is not shared");
        }
        Some(Event::new(Subject::Job(self.job), Kind::JobFolderUnshared, text))
    }
}
