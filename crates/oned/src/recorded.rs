//! Pools that nobody changes here, as a real oned 7.4 showed them.

use crate::front_end::FrontEnd;
use crate::xml;

/// `one.system.config` as recorded; passwords in it are oned's own stars.
pub fn system_config() -> &'static str {
    include_str!("../data/system-config.xml")
}

/// The three datastores of a fresh installation.
pub const DATASTORE_POOL: &str = include_str!("../data/datastorepool.xml");

/// What `one.zonepool.info` answers: the only zone.
pub const ZONE_POOL: &str = include_str!("../data/zonepool.xml");

/// `one.clusterpool.info`: one cluster with everything.
pub fn clusterpool(front_end: &FrontEnd) -> String {
    let mut out = String::from("<CLUSTER_POOL><CLUSTER><ID>0</ID><NAME>default</NAME>");
    xml::ids(&mut out, "HOSTS", front_end.hosts.iter().map(|host| &host.id));
    xml::ids(&mut out, "DATASTORES", &[0, 1, 2]);
    xml::ids(
        &mut out,
        "VNETS",
        front_end.networks.iter().map(|network| &network.id),
    );
    out.push_str("<TEMPLATE><RESERVED_CPU><![CDATA[]]></RESERVED_CPU><RESERVED_MEM><![CDATA[]]></RESERVED_MEM></TEMPLATE>");
    out.push_str("</CLUSTER></CLUSTER_POOL>");
    out
}
