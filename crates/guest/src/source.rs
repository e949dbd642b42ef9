//! Where a guest learns who it is.

use crate::channel::Channel;
use crate::{disk, modules};
use std::time::{Duration, Instant};
use thiao_guest::context_disk::ContextDisk;

/// How long the channel or the context disk may take to appear after the modules were loaded.
const APPEAR_LIMIT: Duration = Duration::from_secs(20);

/// Where this guest's identity comes from.
pub enum Source {
    /// It is told on the channel.
    Channel(Channel),
    /// It was read from a disk.
    Disk(Box<ContextDisk>),
}

impl Source {
    /// Looks for both until one is there. A disk shows only once its driver is
    /// loaded, and a driver is loaded when its bus shows a device for it: a
    /// guest with a channel waits for none of that.
    pub fn find() -> Result<Self, String> {
        let started = Instant::now();
        let mut drivers = modules::Drivers::default();
        loop {
            if let Some(channel) = Channel::open()? {
                return Ok(Self::Channel(channel));
            }
            drivers.load()?;
            if let Some(told) = disk::find()? {
                return Ok(Self::Disk(Box::new(told)));
            }
            if started.elapsed() > APPEAR_LIMIT {
                let mut why = "there is neither a channel nor a context disk to be told by".to_owned();
                if modules::has_sata() {
                    why += "; a disk of a SATA controller is not seen, for which this kernel has no driver: \
                            attach it by IDE or virtio";
                }
                return Err(why);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
