//! Compares two answers of oned by structure and value.

use quick_xml::Reader;
use quick_xml::events::Event;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub text: String,
    pub children: Vec<Node>,
}

/// Reads a document; blanks between elements do not count.
pub fn parse(text: &str) -> Node {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Node> = vec![Node {
        name: String::new(),
        text: String::new(),
        children: Vec::new(),
    }];
    let node = |name: &str| Node {
        name: name.to_owned(),
        text: String::new(),
        children: Vec::new(),
    };
    loop {
        match reader.read_event().unwrap() {
            Event::Start(tag) => open.push(node(tag.name().as_ref())),
            Event::Empty(tag) => {
                let empty = node(tag.name().as_ref());
                open.last_mut().unwrap().children.push(empty);
            }
            Event::End(_) => {
                let mut done = open.pop().unwrap();
                if !done.children.is_empty() {
                    done.text.clear();
                }
                open.last_mut().unwrap().children.push(done);
            }
            Event::Text(text) => open.last_mut().unwrap().text.push_str(&text),
            Event::CData(text) => open.last_mut().unwrap().text.push_str(&text),
            Event::GeneralRef(entity) => {
                let c = match &*entity {
                    "lt" => '<',
                    "gt" => '>',
                    "amp" => '&',
                    "quot" => '"',
                    "apos" => '\'',
                    _ => entity.resolve_char_ref().unwrap().unwrap(),
                };
                open.last_mut().unwrap().text.push(c);
            }
            Event::Eof => break,
            _ => {}
        }
    }
    let mut root = open.pop().unwrap();
    assert!(open.is_empty(), "unclosed elements");
    root.children.pop().expect("an element")
}

/// How much of an element is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// Name, value and everything below.
    All,
    /// Name, and whether the value is empty, 0 or -1.
    Set,
    /// That it is there.
    Name,
    /// Nothing: it may be missing.
    Nothing,
}

/// The differences, with the path to each.
pub fn differences(recorded: &Node, ours: &Node, care: &dyn Fn(&str) -> Care) -> Vec<String> {
    let mut found = Vec::new();
    walk(&recorded.name, recorded, ours, care, &mut found);
    found
}

fn walk(path: &str, recorded: &Node, ours: &Node, care: &dyn Fn(&str) -> Care, found: &mut Vec<String>) {
    if recorded.name != ours.name {
        found.push(format!(
            "{path}: element {} instead of {}",
            ours.name, recorded.name
        ));
        return;
    }
    match care(path) {
        Care::All => {}
        Care::Set => {
            if class(&recorded.text) != class(&ours.text) {
                found.push(format!("{path}: {:?} instead of {:?}", ours.text, recorded.text));
            }
            return;
        }
        Care::Name | Care::Nothing => return,
    }
    // A document within a string: the XML that most answers carry.
    if recorded.name == "string" && recorded.text.starts_with('<') {
        if ours.text.starts_with('<') {
            let (recorded, ours) = (parse(&recorded.text), parse(&ours.text));
            walk(
                &format!("{path}/{}", recorded.name),
                &recorded,
                &ours,
                care,
                found,
            );
        } else {
            found.push(format!("{path}: {:?} instead of XML", ours.text));
        }
        return;
    }
    if recorded.text.trim() != ours.text.trim() {
        found.push(format!("{path}: {:?} instead of {:?}", ours.text, recorded.text));
    }
    let wanted = |node: &&Node| care(&format!("{path}/{}", node.name)) != Care::Nothing;
    let left: Vec<&Node> = recorded.children.iter().filter(wanted).collect();
    let right: Vec<&Node> = ours.children.iter().filter(wanted).collect();
    let names = |nodes: &[&Node]| nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
    if names(&left) != names(&right) {
        found.push(format!(
            "{path}: holds {:?} instead of {:?}",
            names(&right),
            names(&left)
        ));
        return;
    }
    for (recorded, ours) in left.into_iter().zip(right) {
        walk(&format!("{path}/{}", recorded.name), recorded, ours, care, found);
    }
}

fn class(text: &str) -> u8 {
    match text.trim() {
        "" => 0,
        "0" => 1,
        "-1" => 2,
        _ => 3,
    }
}
