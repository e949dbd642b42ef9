//! Pools that nobody changes here, as a real oned 7.4 showed them.

/// `one.system.config` as recorded; passwords in it are oned's own stars.
pub fn system_config() -> &'static str {
    include_str!("../data/system-config.xml")
}

/// The three datastores of a fresh installation.
pub const DATASTORE_POOL: &str = include_str!("../data/datastorepool.xml");

/// What `one.zonepool.info` answers: the only zone.
pub const ZONE_POOL: &str = include_str!("../data/zonepool.xml");
