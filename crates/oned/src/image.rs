//! Images: registered, copied, used. Read of OpenNebula 7.4.0 (`src/rm/api/ImageAPI.cc`, `src/image`,
//! `src/datastore_mad/remotes/libfs.sh`); their XML as recorded.

use crate::rights::Object;
use crate::xml;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use thiao_opennebula::syntax::{Template, Value};

/// The datastore for kernels and ramdisks.
pub const FILES: u32 = 2;
/// What may be copied there (SAFE_DIRS of that datastore).
const SAFE: &str = "/var/tmp/";

/// An image as oned keeps it.
#[derive(Debug, Clone)]
pub struct Image {
    pub id: u32,
    pub uid: u32,
    pub gid: u32,
    /// The owner's name, and the group's.
    pub owner: (String, String),
    pub name: String,
    /// 0 OS, 3 KERNEL, 4 RAMDISK.
    pub kind: i32,
    pub path: String,
    pub datastore: u32,
    pub body: Template,
    pub time: u64,
    /// Until when it is being copied.
    pub busy: Option<Instant>,
    /// Until when it is being deleted: until then it is there (seen on 7.4.0).
    pub going: Option<Instant>,
    /// Whether all may use it.
    pub public: bool,
}

impl Image {
    /// One image, `img`, id 0: that of the recordings.
    pub fn first() -> BTreeMap<u32, Self> {
        let image = Image {
            id: 0,
            uid: 0,
            gid: 0,
            owner: ("oneadmin".into(), "oneadmin".into()),
            name: "img".into(),
            kind: 0,
            path: "/var/tmp/fake.img".into(),
            datastore: 1,
            body: Template(vec![("DEV_PREFIX".into(), Value::Single("sd".into()))]),
            time: 1_795_418_703,
            busy: None,
            going: None,
            public: false,
        };
        BTreeMap::from([(0, image)])
    }

    /// TYPE as a number, of its word.
    pub fn kind_of(word: &str) -> Option<i32> {
        ["OS", "CDROM", "DATABLOCK", "KERNEL", "RAMDISK", "CONTEXT"]
            .iter()
            .zip(0..)
            .find(|(name, _)| name.eq_ignore_ascii_case(word))
            .map(|(_, number)| number)
    }

    /// STATE: 1 READY, 4 LOCKED while it is copied, 5 ERROR, 7 DELETE.
    pub fn state(&self) -> i32 {
        if self.going.is_some() {
            7
        } else if self.busy.is_some_and(|until| until > Instant::now()) {
            4
        } else if self.datastore == FILES && !self.path.starts_with(SAFE) {
            5
        } else {
            1
        }
    }

    /// Whether it was deleted a while ago.
    pub fn is_gone(&self) -> bool {
        self.going.is_some_and(|until| until <= Instant::now())
    }

    /// Begins to copy it.
    pub fn copy(mut self, takes: Duration) -> Self {
        self.busy = Some(Instant::now() + takes);
        self
    }

    /// What rules are about.
    pub fn object(&self) -> Object {
        Object {
            kind: "IMAGE",
            id: Some(self.id),
            uid: self.uid,
            gid: self.gid,
            public: self.public,
        }
    }

    /// Its element, with the number of VMs that use it.
    pub fn xml(&self, out: &mut String, vms: &[u32]) {
        out.push_str("<IMAGE>");
        self.object().xml(out, (&self.owner.0, &self.owner.1), &self.name);
        xml::element(out, "TYPE", self.kind);
        out.push_str("<DISK_TYPE>0</DISK_TYPE><PERSISTENT>0</PERSISTENT>");
        xml::element(out, "REGTIME", self.time);
        xml::element(out, "MODTIME", self.time);
        xml::cdata(out, "SOURCE", "dummy_path");
        xml::cdata(out, "PATH", &self.path);
        xml::cdata(out, "FORMAT", "dummy_format");
        xml::cdata(out, "FS", "");
        out.push_str("<SIZE>1024</SIZE>");
        xml::element(out, "STATE", if vms.is_empty() { self.state() } else { 2 });
        out.push_str("<PREV_STATE>1</PREV_STATE>");
        xml::element(out, "RUNNING_VMS", vms.len());
        out.push_str("<CLONING_OPS>0</CLONING_OPS><CLONING_ID>-1</CLONING_ID>");
        out.push_str("<TARGET_SNAPSHOT>-1</TARGET_SNAPSHOT>");
        xml::element(out, "DATASTORE_ID", self.datastore);
        let datastore = if self.datastore == FILES {
            "files"
        } else {
            "default"
        };
        xml::element(out, "DATASTORE", datastore);
        xml::ids(out, "VMS", vms);
        out.push_str("<CLONES></CLONES><APP_CLONES></APP_CLONES>");
        let mut body = self.body.clone();
        if self.state() == 5 {
            let text = format!(
                "Error copying image in the datastore: Not allowed to copy image from {}, check RESTRICTED_DIRS in your datastore",
                self.path
            );
            body.set("ERROR", text);
        }
        xml::template(out, "TEMPLATE", &body);
        out.push_str("<SNAPSHOTS>");
        xml::cdata(out, "ALLOW_ORPHANS", "NO");
        xml::cdata(out, "CURRENT_BASE", "-1");
        xml::cdata(out, "NEXT_SNAPSHOT", "0");
        out.push_str(
            "</SNAPSHOTS><BACKUP_INCREMENTS></BACKUP_INCREMENTS><BACKUP_DISK_IDS></BACKUP_DISK_IDS></IMAGE>",
        );
    }
}
