//! Hearing the guests: their reports, the context that each is given once, and
//! what the silence of one means.

use super::table::{CONTEXT_SENT, Inner, Qemu, RESTORED, Vm, now};
use crate::channel::News;
use crate::error::Error;
use crate::vmdir::SlurmdStart;
use crate::{guest, vmdir};
use std::sync::Weak;
use std::time::Duration;
use thiao_core::ids::{Millis, Time, VmId};
use thiao_guest::protocol::{Phase, Report, Request};

/// How long a QEMU whose channel closed may still hold its lock.
const CLOSING_LIMIT: Duration = Duration::from_millis(500);

/// How long a restored guest may take to take its context: a few hundred milliseconds are usual.
const SILENCE_LIMIT: Millis = Millis::secs(60);

/// News from a guest, on the attending thread.
pub(super) fn heard(inner: &Weak<Inner>, id: &VmId, news: News) {
    let Some(inner) = inner.upgrade() else { return };
    match news {
        News::Report(report) => {
            if report.phase == Phase::People {
                return inner.arrived(id, report);
            }
            let waiting = report.phase == Phase::Waiting;
            if !inner.take(id, report) {
                return;
            }
            if waiting && let Err(error) = inner.give_context(id) {
                tracing::error!(vm = %id, %error, "the guest cannot be given its context");
                inner.tell(id, &format!("context not sent: {error}"));
            }
        }
        News::Closed => {
            let folder = inner.folder(id);
            // The lock goes with the process, a moment after its sockets.
            if vmdir::wait_gone(&folder, CLOSING_LIMIT).is_ok_and(|gone| gone) && folder.exists() {
                inner.tell(id, "QEMU ended");
            }
        }
    }
    (inner.wake)();
}

impl Inner {
    /// A guest that was restored and stays silent has a broken template behind it.
    pub(super) fn doubt(&self, id: &VmId, vm: &Vm, now: Time) {
        let told = |words: &str| vm.story.iter().any(|(_, what)| what == words);
        if told(RESTORED)
            && !told(Phase::Configured.as_str())
            && let (Some(record), Some(ready)) = (&vm.record, self.ready())
            && now.since(Time(record.created_ms)) > SILENCE_LIMIT
            && let Some(tag) = vmdir::tag_of(&self.settings.cluster, id)
        {
            ready.distrust(&ready.key(&tag.node, record.cpus, record.total_mb));
        }
    }

    /// Connects to the guest of a running VM and asks how far it is. It may not
    /// be up enough yet: the next observation tries again.
    pub(super) fn reach(&self, id: &VmId) {
        let Some(channels) = self.channels.get() else {
            return;
        };
        let asked = channels
            .connect(id, &self.folder(id))
            .and_then(|()| channels.say(id, &Request::Status));
        if let Err(error) = asked {
            tracing::debug!(vm = %id, %error, "cannot reach the guest of a running VM yet");
        }
        self.say_start(id);
    }

    /// Tells a guest which start of slurmd is due, if one is and the guest can be reached; a
    /// guest that has no context yet is told after it. Told twice it is harmless.
    fn say_start(&self, id: &VmId) {
        let due = self
            .table()
            .get(id)
            .filter(|vm| vm.context_sent)
            .and_then(|vm| vm.start);
        let (Some(start), Some(channels)) = (due, self.channels.get()) else {
            return;
        };
        let request = Request::Slurmd {
            number: start.number,
            wait_ms: start.not_before_ms.saturating_sub(now().0),
        };
        if let Err(error) = channels.say(id, &request) {
            tracing::debug!(vm = %id, %error, "the guest is told to start slurmd when it is reached");
        }
    }

    /// Notes that the context is being sent; false when it was before.
    pub fn first_context(&self, id: &VmId) -> bool {
        self.table()
            .get_mut(id)
            .is_some_and(|vm| !std::mem::replace(&mut vm.context_sent, true))
    }

    /// Takes a guest's report into the table; true when it was new.
    fn take(&self, id: &VmId, report: Report) -> bool {
        let what = match &report.detail {
            Some(detail) => format!("{}: {detail}", report.phase.as_str()),
            None => report.phase.as_str().to_owned(),
        };
        {
            let mut table = self.table();
            let Some(vm) = table.get_mut(id) else { return false };
            if vm.reports.iter().any(|(seen, _)| *seen == report.phase) {
                return false;
            }
            vm.reports.push((report.phase, report.detail));
            // After an adoption the story on disk has it already, with the right time.
            if vm.story.iter().any(|(_, told)| *told == what) {
                return true;
            }
        }
        self.tell(id, &what);
        true
    }

    /// Gives a guest its identity, unless it was given before.
    pub fn give_context(&self, id: &VmId) -> Result<(), Error> {
        let known = self
            .table()
            .get(id)
            .map(|vm| (vm.record.clone(), vm.people.clone()));
        let (Some((Some(record), people)), Some(channels)) = (known, self.channels.get()) else {
            return Ok(());
        };
        if !self.first_context(id) {
            return Ok(());
        }
        let seen = self.served(&people.exports)?;
        let shares = people.mounts.into_iter().chain(seen).collect();
        let context = guest::context(&self.settings, id, &record, (people.users, people.groups), shares)?;
        channels
            .say(id, &Request::Context(Box::new(context)))
            .map_err(|e| Error::io("send its context to the guest in", &self.folder(id), e))?;
        self.tell(id, CONTEXT_SENT);
        self.say_start(id);
        Ok(())
    }
}

impl Qemu {
    /// Has the guest start slurmd for the `number`th time, after `wait`. The same number again
    /// changes nothing; it is kept for a guest that cannot be told yet.
    pub fn start_slurmd(&self, id: &VmId, number: u32, wait: Duration) -> Result<(), Error> {
        let inner = &self.inner;
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let start = SlurmdStart {
            number,
            not_before_ms: now().0.saturating_add(wait_ms),
        };
        // The table is free again after this line: it is taken below.
        let is_known = inner
            .table()
            .get(id)
            .map(|vm| vm.start.is_some_and(|known| known.number >= number));
        match is_known {
            None => return Err(Error::Refused(format!("there is no VM {id} here"))),
            Some(true) => {}
            Some(false) => {
                start.write(&inner.folder(id))?;
                if let Some(vm) = inner.table().get_mut(id) {
                    vm.start = Some(start);
                }
            }
        }
        inner.say_start(id);
        Ok(())
    }
}
