//! Starts and stops one VM's QEMU. A VM starts from its shape's template; when
//! that fails the template is thrown away and the VM boots instead.

use crate::channel::Channels;
use crate::error::Error;
use crate::image::System;
use crate::machine::{self, Machine, Memory, Start};
use crate::net::NetError;
use crate::provider::{Inner, RESTORED};
use crate::qmp::Qmp;
use crate::template::Template;
use crate::vmdir::{self, ContextBy, Life, QMP_SOCKET, Record, tag_of};
use crate::warm::Ready;
use serde_json::json;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiao_core::ids::VmId;

/// The story's words for a QEMU that came up.
const STARTED: &str = "QEMU started";

/// How long the tap of an ended QEMU may still be there.
const TAP_LIMIT: Duration = Duration::from_secs(2);

/// Starts the VM and connects to its guest. The guest gets its context at once
/// when it was restored, or asks for it when it has booted; one with a context
/// disk needs nothing more.
pub fn launch(
    inner: &Inner,
    ready: &Arc<Ready>,
    channels: Option<&Channels>,
    id: &VmId,
    record: &Record,
) -> Result<(), Error> {
    let folder = inner.folder(id);
    let tag = tag_of(&inner.settings.cluster, id)
        .ok_or_else(|| Error::Refused(format!("the VM {id} belongs to none of our nodes")))?;
    let key = ready.key(&tag.node, record.cpus, record.total_mb);
    let system = ready.system(&key.guests)?;
    let template = match record.told {
        ContextBy::Channel => ready.template(&key),
        ContextBy::Seed | ContextBy::Disk { .. } => None,
    };
    let launch = Launch {
        inner,
        ready,
        system,
        channels,
        id,
        record,
    };
    if let Some(template) = template {
        match launch.restore(&template) {
            Ok(()) => return inner.give_context(id),
            Err(error) => {
                tracing::warn!(vm = %id, %error, "a template is broken and is thrown away; the VM boots instead");
                inner.tell(id, &format!("not restored, boots instead: {error}"));
                ready.distrust(&key);
                stop(&folder, Duration::ZERO, Duration::from_secs(10))?;
            }
        }
    }
    launch.boot()
}

/// A VM on its way up.
struct Launch<'a> {
    inner: &'a Inner,
    ready: &'a Ready,
    system: &'a System,
    channels: Option<&'a Channels>,
    id: &'a VmId,
    record: &'a Record,
}

impl Launch<'_> {
    fn restore(&self, template: &Template) -> Result<(), Error> {
        let Self { inner, id, .. } = *self;
        let folder = inner.folder(id);
        if let Some(disks) = template.disks(self.system) {
            disks.lay_over(&folder)?;
        }
        let tap = open_tap(inner, self.record)?;
        let machine = Machine {
            memory: Memory::CopyOnWrite(template.memory()),
            start: Start::Restore,
            tap: Some(tap.as_raw_fd()),
            ..self.machine()
        };
        machine.start(self.system, &folder, &[tap.as_fd()])?;
        inner.tell(id, STARTED);
        place(inner, id, self.record);
        // Before the guest lives: it would see a channel without a listener otherwise, and rest.
        connect(self.channels, id, &folder)?;
        template.restore(&folder)?;
        inner.tell(id, RESTORED);
        Ok(())
    }

    fn boot(&self) -> Result<(), Error> {
        let Self { inner, id, .. } = *self;
        let folder = inner.folder(id);
        self.system.lay_over(&folder)?;
        let tap = open_tap(inner, self.record)?;
        let machine = Machine {
            tap: Some(tap.as_raw_fd()),
            ..self.machine()
        };
        machine.start(self.system, &folder, &[tap.as_fd()])?;
        inner.tell(id, STARTED);
        place(inner, id, self.record);
        match self.record.told {
            ContextBy::Channel => connect(self.channels, id, &folder),
            ContextBy::Seed | ContextBy::Disk { .. } => Ok(()),
        }
    }

    fn machine(&self) -> Machine {
        let (start, mac) = match self.record.told {
            ContextBy::Channel => (Start::Boot, machine::mac_of(self.record.address)),
            ContextBy::Seed => (Start::Seeded, machine::mac_of(self.record.address)),
            ContextBy::Disk { mac } => (Start::Told, mac),
        };
        Machine {
            name: format!("thiao-{}-{}", self.inner.settings.cluster, self.id),
            cpus: self.record.cpus,
            memory_mb: self.record.total_mb,
            accel: self.ready.verdict.accel,
            tsc_khz: self.ready.verdict.tsc_khz,
            memory: Memory::Private,
            start,
            mac,
            tap: None,
        }
    }
}

fn connect(channels: Option<&Channels>, id: &VmId, folder: &Path) -> Result<(), Error> {
    let Some(channels) = channels else { return Ok(()) };
    channels
        .connect(id, folder)
        .map_err(|e| Error::io("connect to the guest in", folder, e))
}

/// A VM without its share enforced is better than none.
fn place(inner: &Inner, id: &VmId, record: &Record) {
    let Some(pid) = vmdir::pid(&inner.folder(id)) else {
        return;
    };
    let percent = record.cpu_percent();
    if let Err(error) = inner.cgroups.place(id, pid.as_raw_nonzero().get(), percent) {
        tracing::warn!(vm = %id, %error, "CPU share");
        inner.tell(id, &error.to_string());
    }
}

/// The name of a VM's tap.
pub fn tap_name(record: &Record) -> String {
    crate::net::tap_of(record.address)
}

/// Opens the VM's tap. That of a QEMU that has just ended takes a moment to go. A bridge that somebody
/// has removed is made again.
fn open_tap(inner: &Inner, record: &Record) -> Result<OwnedFd, Error> {
    let name = tap_name(record);
    let network = &inner.settings.network;
    let until = Instant::now() + TAP_LIMIT;
    let mut mended = false;
    loop {
        match network.open_tap(&name) {
            Err(NetError::NoBridge(_)) if !mended => {
                network.ensure_bridge()?;
                mended = true;
            }
            Err(NetError::TapBusy(_)) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10))
            }
            opened => return Ok(opened?),
        }
    }
}

/// Ends a folder's QEMU: asks it, then kills it.
pub fn stop(folder: &Path, quit_limit: Duration, kill_limit: Duration) -> Result<(), Error> {
    if vmdir::life(folder)? != Life::Alive {
        return Ok(());
    }
    if !quit_limit.is_zero()
        && let Ok(mut qmp) = Qmp::connect(folder, QMP_SOCKET, quit_limit)
    {
        // Its answer may be lost when it ends fast; the lock tells.
        let _ = qmp.ask("quit", json!({}), quit_limit);
        if vmdir::wait_gone(folder, quit_limit)? {
            return Ok(());
        }
    }
    vmdir::kill(folder)?;
    if vmdir::wait_gone(folder, kill_limit)? {
        return Ok(());
    }
    Err(Error::Qemu(format!(
        "the QEMU of {} does not end even when killed",
        folder.display()
    )))
}
