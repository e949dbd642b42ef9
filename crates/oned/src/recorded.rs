//! Pools that nobody changes here, as a real oned 7.4 showed them.

use crate::world::World;
use crate::xml;

/// `one.system.config` as recorded; passwords in it are oned's own stars.
pub fn system_config() -> &'static str {
    include_str!("../data/system-config.xml")
}

/// One image, `img`, id 0.
pub const IMAGE_POOL: &str = include_str!("../data/imagepool.xml");

/// The three datastores of a fresh installation.
pub const DATASTORE_POOL: &str = include_str!("../data/datastorepool.xml");

/// The only zone.
pub const ZONE_POOL: &str = include_str!("../data/zonepool.xml");

/// `one.clusterpool.info`: one cluster with everything.
pub fn clusterpool(world: &World) -> String {
    let mut out = String::from("<CLUSTER_POOL><CLUSTER><ID>0</ID><NAME>default</NAME>");
    xml::ids(&mut out, "HOSTS", world.hosts.iter().map(|host| &host.id));
    xml::ids(&mut out, "DATASTORES", &[0, 1, 2]);
    xml::ids(
        &mut out,
        "VNETS",
        world.networks.iter().map(|network| &network.id),
    );
    out.push_str("<TEMPLATE><RESERVED_CPU><![CDATA[]]></RESERVED_CPU><RESERVED_MEM><![CDATA[]]></RESERVED_MEM></TEMPLATE>");
    out.push_str("</CLUSTER></CLUSTER_POOL>");
    out
}

/// `one.grouppool.info`: users and oneadmin.
pub fn grouppool(world: &World) -> String {
    let none = "<DATASTORE_QUOTA></DATASTORE_QUOTA><NETWORK_QUOTA></NETWORK_QUOTA><VM_QUOTA></VM_QUOTA><IMAGE_QUOTA></IMAGE_QUOTA>";
    let mut out = String::from("<GROUP_POOL>");
    for (id, name) in [(1, "users"), (0, "oneadmin")] {
        out.push_str("<GROUP>");
        xml::element(&mut out, "ID", id);
        xml::element(&mut out, "NAME", name);
        out.push_str("<TEMPLATE>");
        if id == 1 {
            out.push_str("<SUNSTONE>");
            for (key, view) in [
                ("DEFAULT_VIEW", "cloud"),
                ("GROUP_ADMIN_DEFAULT_VIEW", "groupadmin"),
                ("GROUP_ADMIN_VIEWS", "groupadmin,cloud"),
                ("VIEWS", "cloud"),
            ] {
                xml::cdata(&mut out, key, view);
            }
            out.push_str("</SUNSTONE>");
        }
        out.push_str("</TEMPLATE>");
        let members = world
            .users
            .iter()
            .filter(|user| user.gid == id)
            .map(|user| &user.id);
        xml::ids(&mut out, "USERS", members);
        out.push_str("<ADMINS></ADMINS></GROUP><QUOTAS>");
        xml::element(&mut out, "ID", id);
        out.push_str(none);
        out.push_str("</QUOTAS><VLAN_RULES>");
        xml::cdata(&mut out, "ID", &id.to_string());
        out.push_str("</VLAN_RULES>");
    }
    out.push_str("<DEFAULT_GROUP_QUOTAS>");
    out.push_str(none);
    out.push_str("</DEFAULT_GROUP_QUOTAS></GROUP_POOL>");
    out
}
