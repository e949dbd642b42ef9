//! Small pieces of OpenNebula's XML.

use std::fmt::Write as _;
use thiao_opennebula::syntax::{Template, Value};

/// Appends `<NAME>value</NAME>`; the value is a number or a name without special characters.
pub fn element(out: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = write!(out, "<{name}>{value}</{name}>");
}

/// Appends `<NAME><![CDATA[value]]></NAME>`; the value may be any text.
pub fn cdata(out: &mut String, name: &str, value: &str) {
    out.push('<');
    out.push_str(name);
    out.push_str("><![CDATA[");
    if value.contains("]]>") {
        // The only text that cannot stand in CDATA.
        out.push_str(&value.replace("]]>", "]]]]><![CDATA[>"));
    } else {
        out.push_str(value);
    }
    out.push_str("]]></");
    out.push_str(name);
    out.push('>');
}

/// Appends an element that holds numbers: `<VMS><ID>0</ID>...</VMS>`.
pub fn ids<'a>(out: &mut String, name: &str, ids: impl IntoIterator<Item = &'a u32>) {
    let _ = write!(out, "<{name}>");
    for id in ids {
        element(out, "ID", id);
    }
    let _ = write!(out, "</{name}>");
}

/// Appends a template under that name, attributes in the order of their names, as oned keeps them.
pub fn template(out: &mut String, name: &str, template: &Template) {
    let _ = write!(out, "<{name}>");
    let mut sorted: Vec<&(String, Value)> = template.0.iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    for (key, value) in sorted {
        match value {
            Value::Single(text) => cdata(out, key, text),
            Value::Vector(pairs) => {
                let _ = write!(out, "<{key}>");
                let mut pairs: Vec<&(String, String)> = pairs.iter().collect();
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
                for (key, text) in pairs {
                    cdata(out, key, text);
                }
                let _ = write!(out, "</{key}>");
            }
        }
    }
    let _ = write!(out, "</{name}>");
}

/// Appends the permissions of an object that only its owner may use and manage.
pub fn permissions(out: &mut String, other_use: bool) {
    out.push_str("<PERMISSIONS><OWNER_U>1</OWNER_U><OWNER_M>1</OWNER_M><OWNER_A>0</OWNER_A>");
    out.push_str("<GROUP_U>0</GROUP_U><GROUP_M>0</GROUP_M><GROUP_A>0</GROUP_A>");
    element(out, "OTHER_U", u8::from(other_use));
    out.push_str("<OTHER_M>0</OTHER_M><OTHER_A>0</OTHER_A></PERMISSIONS>");
}
