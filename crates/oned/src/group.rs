//! Groups of users.

use thiao_opennebula::syntax::{Template, Value};

/// A group as oned keeps it.
#[derive(Debug, Clone)]
pub struct Group {
    /// 0 oneadmin, 1 users, from 100 on those that were made.
    pub id: u32,
    pub name: String,
    pub body: Template,
}

impl Group {
    /// Those of a fresh installation.
    pub fn first() -> Vec<Self> {
        let views = [
            ("DEFAULT_VIEW", "cloud"),
            ("GROUP_ADMIN_DEFAULT_VIEW", "groupadmin"),
            ("GROUP_ADMIN_VIEWS", "groupadmin,cloud"),
            ("VIEWS", "cloud"),
        ];
        let views = views
            .map(|(key, text)| (key.to_owned(), text.to_owned()))
            .to_vec();
        let group = |id, name: &str, body| Group {
            id,
            name: name.into(),
            body: Template(body),
        };
        vec![
            group(0, "oneadmin", Vec::new()),
            group(1, "users", vec![("SUNSTONE".into(), Value::Vector(views))]),
        ]
    }
}
