//! OpenNebula as a provider of VMs.

use crate::error::Error;
use crate::settings::Settings;

/// The provider. Clones share everything.
#[derive(Debug, Clone)]
pub struct OpenNebula {}

impl OpenNebula {
    /// Reads the credentials; nothing is called yet.
    pub fn open(settings: Settings) -> Result<Self, Error> {
        let _ = settings;
        todo!()
    }
}
