//! OpenNebula's clusters: what hosts, networks and datastores have to do with each other. Read of 6.10.0 and 7.4.0
//! (`VirtualMachineAPI::deploy`, `get_default_ds_information`, `get_ds_information`; `Cluster::get_default_system_ds`;
//! `get_cluster_requirements` of `VirtualMachine.cc`): the same in both. Images' datastores are in every cluster here.

use crate::front_end::FrontEnd;
use crate::recorded::DATASTORE_POOL;
use crate::refusal::{Code, Refusal};
use crate::xml;
use std::collections::{BTreeMap, BTreeSet};

impl FrontEnd {
    /// All clusters, by their ids.
    fn clusters(&self) -> BTreeMap<u32, &str> {
        let of_hosts = self.hosts.iter().filter(|host| !host.deleted);
        let mut all: BTreeMap<u32, &str> = of_hosts
            .map(|host| (host.setup.cluster.id, host.setup.cluster.name.as_str()))
            .collect();
        all.entry(0).or_insert("default");
        all
    }

    /// What `one.clusterpool.info` answers: each with what it has.
    pub fn cluster_pool(&self) -> String {
        let mut out = String::from("<CLUSTER_POOL>");
        for (id, name) in self.clusters().into_iter().rev() {
            out.push_str("<CLUSTER>");
            xml::element(&mut out, "ID", id);
            xml::element(&mut out, "NAME", name);
            let hosts = self.hosts.iter().filter(|host| host.setup.cluster.id == id);
            xml::ids(&mut out, "HOSTS", hosts.map(|host| &host.id));
            let own = [0, 1, 2].into_iter().filter(|store| id == 0 || *store != 0);
            let more = self
                .settings
                .stores
                .iter()
                .filter(|store| store.clusters.contains(&id));
            let stores: Vec<u32> = own.chain(more.map(|store| store.id)).collect();
            xml::ids(&mut out, "DATASTORES", &stores);
            let networks = self
                .networks
                .iter()
                .filter(|network| network.setup.clusters.contains(&id));
            xml::ids(&mut out, "VNETS", networks.map(|network| &network.id));
            out.push_str("<TEMPLATE><RESERVED_CPU><![CDATA[]]></RESERVED_CPU><RESERVED_MEM><![CDATA[]]></RESERVED_MEM></TEMPLATE>");
            out.push_str("</CLUSTER>");
        }
        out.push_str("</CLUSTER_POOL>");
        out
    }

    /// `one.datastorepool.info`: as recorded, and what the settings add, in the form of the recording's.
    pub fn datastore_pool(&self) -> String {
        const ONE: &str = "<CLUSTERS><ID>0</ID></CLUSTERS>";
        let mut clusters = String::new();
        xml::ids(&mut clusters, "CLUSTERS", self.clusters().keys());
        // The newest comes first: files, images, system.
        let recorded = DATASTORE_POOL.replacen(ONE, &clusters, 2);
        let mut more = String::from("<DATASTORE_POOL>");
        for store in self.settings.stores.iter().rev() {
            more.push_str("<DATASTORE>");
            xml::element(&mut more, "ID", store.id);
            more.push_str("<UID>0</UID><GID>0</GID><UNAME>oneadmin</UNAME><GNAME>oneadmin</GNAME>");
            xml::element(&mut more, "NAME", &store.name);
            xml::permissions(&mut more, false);
            more.push_str("<DS_MAD><![CDATA[-]]></DS_MAD><TM_MAD><![CDATA[dummy]]></TM_MAD>");
            xml::cdata(
                &mut more,
                "BASE_PATH",
                &format!("/var/lib/one/datastores/{}", store.id),
            );
            more.push_str("<TYPE>1</TYPE><DISK_TYPE>0</DISK_TYPE><STATE>0</STATE>");
            xml::ids(&mut more, "CLUSTERS", &store.clusters);
            xml::element(&mut more, "TOTAL_MB", store.free_mb);
            xml::element(&mut more, "FREE_MB", store.free_mb);
            more.push_str("<USED_MB>0</USED_MB><IMAGES></IMAGES><TEMPLATE><SHARED><![CDATA[YES]]></SHARED>");
            more.push_str(
                "<TM_MAD><![CDATA[dummy]]></TM_MAD><TYPE><![CDATA[SYSTEM_DS]]></TYPE></TEMPLATE></DATASTORE>",
            );
        }
        recorded.replacen("<DATASTORE_POOL>", &more, 1)
    }

    /// The system datastore for a deploy to that host: the wanted one, or for -1 the first of its cluster.
    pub fn system_store(&self, host: u32, wanted: i32) -> Result<u32, Refusal> {
        let action = |text: &str| Refusal::plain(Code::Action, text);
        let cluster = self
            .hosts
            .iter()
            .find(|known| known.id == host)
            .map_or(0, |host| host.setup.cluster.id);
        let here = |id: u32| match id {
            0 => cluster == 0,
            id => {
                let store = self.settings.stores.iter().find(|store| store.id == id);
                store.is_some_and(|store| store.clusters.contains(&cluster))
            }
        };
        let Ok(wanted) = u32::try_from(wanted) else {
            let all: BTreeSet<u32> = self
                .settings
                .stores
                .iter()
                .map(|store| store.id)
                .chain([0])
                .collect();
            return all.into_iter().find(|id| here(*id)).ok_or_else(|| {
                action(&format!(
                    "cluster [{cluster}] does not have any datastore of type SYSTEM_DS."
                ))
            });
        };
        if wanted == 1 || wanted == 2 {
            return Err(Refusal::plain(
                Code::Internal,
                &format!(
                    "Trying to use datastore [{wanted}] to deploy the VM, but it is not of type system datastore."
                ),
            ));
        }
        if wanted != 0 && !self.settings.stores.iter().any(|store| store.id == wanted) {
            return Err(Refusal::no_such("datastore", wanted));
        }
        match here(wanted) {
            true => Ok(wanted),
            false => Err(action(&format!(
                "datastore [{wanted}] and host [{host}] are not in the same cluster [{cluster}]."
            ))),
        }
    }

    /// The clusters that all these networks are in; none: there is no network. Where they have none in common oned makes
    /// no VM, and says of which card.
    pub fn common_clusters(&self, networks: &[u32]) -> Result<Vec<u32>, String> {
        let mut common: Vec<u32> = Vec::new();
        let of = |id: &u32| {
            self.networks
                .get(*id as usize)
                .map(|network| &network.setup.clusters)
        };
        for (card, clusters) in networks.iter().filter_map(of).enumerate() {
            if card == 0 {
                common.clone_from(clusters);
                continue;
            }
            let before = common.clone();
            common.retain(|id| clusters.contains(id));
            if common.is_empty() {
                return Err(format!(
                    "Incompatible clusters in NIC. Network for NIC {card} is not in the same cluster as the one used by \
                     other VM elements (cluster {})",
                    joined(&before, ",")
                ));
            }
        }
        Ok(common)
    }
}

/// Ids with something between them.
pub fn joined(ids: &[u32], between: &str) -> String {
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    ids.join(between)
}
