use super::*;
use proptest::prelude::*;

fn single(name: &str, value: &str) -> (String, Value) {
    (name.to_owned(), Value::Single(value.to_owned()))
}

fn vector(name: &str, pairs: &[(&str, &str)]) -> (String, Value) {
    let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    (name.to_owned(), Value::Vector(pairs.collect()))
}

#[track_caller]
fn reads(text: &str, attributes: &[(String, Value)]) {
    assert_eq!(Template::parse(text).expect("it parses").0, attributes);
}

#[track_caller]
fn refuses(text: &str, words: &str) {
    let error = Template::parse(text).expect_err("it is wrong");
    assert_eq!(error.class, Class::BadTemplate);
    assert!(error.text.contains(words), "{}", error.text);
}

#[test]
fn a_template_of_2011_is_read() {
    let text = "#-----\n# one file for all\n#-----\n\nNAME\t= \"vmg-fg\"\n\nvCPU\t= 3\nCPU\t\t= 1\n\
        OS\t= [ ARCH = \"x86_64\"]\n#\t    BOOT = \"sda1\" ]\n\nDISK = [ \n\tsource = \"/img/d.img\",\n\
        \tclone = \"yes\" ]\n\nNIC = [ NETWORK = \"fg1\" ]\nNIC = [ NETWORK = \"fg2\" ]\n\nCONTEXT = [\n\
        #\thostname   = \"vmg\",\n\tgw         = \"$NETWORK[GATEWAY, NAME=\\\"fg1\\\"]\",\n\
        #\tip_public  = \"172.20.6.$VMID\",\n\tvmid\t   = $VMID,\n\tfiles = \"/a /b\"\n]\n\n# --- vnc\n\n";
    reads(
        text,
        &[
            single("NAME", "vmg-fg"),
            single("VCPU", "3"),
            single("CPU", "1"),
            vector("OS", &[("ARCH", "x86_64")]),
            vector("DISK", &[("SOURCE", "/img/d.img"), ("CLONE", "yes")]),
            vector("NIC", &[("NETWORK", "fg1")]),
            vector("NIC", &[("NETWORK", "fg2")]),
            vector(
                "CONTEXT",
                &[
                    ("GW", "$NETWORK[GATEWAY, NAME=\"fg1\"]"),
                    ("VMID", "$VMID"),
                    ("FILES", "/a /b"),
                ],
            ),
        ],
    );
}

#[test]
fn odd_but_right_texts_are_read_as_oned_reads_them() {
    reads("", &[]);
    reads("# only a comment", &[]);
    reads("A=\nB=1", &[single("A", ""), single("B", "1")]);
    reads("A=", &[single("A", "")]);
    reads("A=\"\"", &[single("A", "")]);
    reads(
        "a = \"two\nlines # no comment\"",
        &[single("A", "two\nlines # no comment")],
    );
    reads(r#"a = "C:\dir\\x""#, &[single("A", r"C:\dir\\x")]);
    reads(r#"a = "C:\ ""#, &[single("A", r"C:\")]);
    reads("a = []", &[vector("A", &[])]);
    reads("a = [ b = 1, b = 2 ]", &[vector("A", &[("B", "1")])]);
    reads("a = 1 b = 2", &[single("A", "1"), single("B", "2")]);
    reads(
        "a = 1\r\nb = [\r\n c = 2\r\n]\r\n",
        &[single("A", "1"), vector("B", &[("C", "2")])],
    );
    reads(
        "1a = 2\nxml_x = 3",
        &[single("ONE_1A", "2"), single("ONE_XML_X", "3")],
    );
}

#[test]
fn errors_say_where_and_what_to_do() {
    refuses("A = 1\nB", "line 2, column 2: expected = after B, not the end");
    refuses("A = 1\n  = 2", "line 2, column 3: expected an attribute's name");
    refuses(
        "A = [ B = 1, ]",
        "line 1, column 14: an attribute of A is missing after the comma",
    );
    refuses("A = [ B = 1", "A = [ is never closed");
    refuses("A = [", "A = [ is never closed");
    refuses("A = [ B = [ C = 1 ] ]", "one level is all");
    refuses("A = [ B =\n ]", "B in A has no value");
    refuses("A = \"x", "never closed");
    refuses(r#"A = "C:\""#, "never closed");
    refuses(
        "A = \"x\"y",
        "line 1, column 8: 'y' cannot follow the closing quote of A",
    );
    refuses(
        "A = x[1]",
        "line 1, column 6: '[' cannot stand here: put the value of A in quotes",
    );
    refuses("A = # nothing", "A has no value");
    refuses("A += 1", "expected = after A, not '+'");
    refuses("A = \"]]>\"", "cannot keep");
    refuses("A = [ B = x@^_^@C=d ]", "'=' cannot stand here");
    refuses("A = [ B = \"x@^_^@C=d\" ]", "cannot keep");
    refuses("A = \"\u{1}\"", "control character");
    refuses(&"#".repeat(MAX_TEXT + 1), "at most");
}

#[test]
fn xml_is_written_as_oned_reads_it() {
    let template = Template(vec![
        single("NAME", "a<b>&\"c\" ]]>\r\n"),
        vector("CONTEXT", &[("NETWORK", "YES")]),
    ]);
    assert_eq!(
        template.to_xml(),
        "<TEMPLATE><NAME>a&lt;b&gt;&amp;\"c\" ]]&gt;&#13;\n</NAME>\
         <CONTEXT><NETWORK>YES</NETWORK></CONTEXT></TEMPLATE>"
    );
}

#[test]
fn what_oned_cannot_keep_is_found_before_it_is_sent() {
    let wrong = |name, value| Template(vec![single(name, value)]).check().is_err();
    assert!(wrong("A", "]]>"));
    assert!(wrong("A", "\0"));
    assert!(wrong("A B", ""));
    assert!(wrong("", ""));
    assert!(wrong("a", ""));
    assert!(!wrong("A", "any \\ \" text\n = [ # ]"));
    assert!(Template(vec![vector("A", &[("B/", "")])]).check().is_err());
}

/// Reads what [`Template::to_xml`] writes as libxml2 gives it to oned.
fn from_xml(xml: &str) -> Option<Template> {
    use quick_xml::events::Event;
    let mut reader = quick_xml::Reader::from_str(xml);
    let (mut path, mut texts) = (Vec::new(), vec![String::new()]);
    let (mut attributes, mut pairs) = (Vec::new(), Vec::new());
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                path.push(start.name().as_ref().to_owned());
                texts.push(String::new());
            }
            Event::Text(text) => texts.last_mut()?.push_str(&text),
            Event::GeneralRef(entity) => {
                let text = match entity.resolve_char_ref().ok()? {
                    Some(c) => c.to_string(),
                    None => quick_xml::escape::resolve_predefined_entity(&entity)?.to_owned(),
                };
                texts.last_mut()?.push_str(&text);
            }
            Event::End(_) => {
                let (name, text) = (path.pop()?, texts.pop()?);
                match path.len() {
                    2 => pairs.push((name, text)),
                    1 if pairs.is_empty() => attributes.push((name, Value::Single(text))),
                    1 => attributes.push((name, Value::Vector(std::mem::take(&mut pairs)))),
                    _ => {}
                }
            }
            Event::Eof => return path.is_empty().then_some(Template(attributes)),
            _ => return None,
        }
    }
}

fn attribute(name: &'static str, value: &'static str) -> impl Strategy<Value = (String, Value)> {
    let pairs = prop::collection::btree_map(name, value, 1..4);
    (
        name,
        prop_oneof![
            value.prop_map(Value::Single),
            pairs.prop_map(|pairs| Value::Vector(pairs.into_iter().collect())),
        ],
    )
}

fn template(name: &'static str, value: &'static str) -> impl Strategy<Value = Template> {
    prop::collection::vec(attribute(name, value), 0..5).prop_map(Template)
}

const NAME: &str = "[A-WYZ_][A-Z0-9_]{0,8}";
/// Much of what the syntax is made of; no blanks at the ends.
const VALUE: &str =
    "([^\\pC\\s]|[\"\\\\,=#$\\[\\]])([\"\\\\,=#$<>&;\n \\[\\]a-z0-9é]{0,12}[\"\\\\,=#\\[\\]])?";
const ANY: &str = "(?s).{0,12}";

fn shape(template: &Template) -> Vec<(String, Option<usize>)> {
    let size = |value: &Value| match value {
        Value::Single(_) => None,
        Value::Vector(pairs) => Some(pairs.len()),
    };
    template
        .0
        .iter()
        .map(|(name, value)| (canonical(name), size(value)))
        .collect()
}

proptest! {
    #[test]
    fn what_is_written_as_text_is_read_the_same(template in template(NAME, VALUE)) {
        prop_assume!(template.check().is_ok());
        prop_assert_eq!(Template::parse(&template.to_text()).expect("our own text"), template);
    }

    #[test]
    fn what_is_written_as_xml_is_read_the_same(template in template(NAME, VALUE)) {
        prop_assume!(template.check().is_ok());
        prop_assert_eq!(from_xml(&template.to_xml()), Some(template));
    }

    #[test]
    fn no_value_becomes_an_attribute(template in template(NAME, ANY)) {
        prop_assert_eq!(from_xml(&template.to_xml()).map(|t| shape(&t)), Some(shape(&template)));
        // Control characters are refused by the reader; they break nothing out.
        if let Ok(read) = Template::parse(&template.to_text()) {
            prop_assert_eq!(shape(&read), shape(&template));
        }
    }

    #[test]
    fn no_name_becomes_more_than_a_name(template in template(ANY, VALUE)) {
        prop_assert_eq!(from_xml(&template.to_xml()).map(|t| t.0.len()), Some(template.0.len()));
        if let Ok(read) = Template::parse(&template.to_text()) {
            prop_assert_eq!(read.0.len(), template.0.len());
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "([A-C=\\[\\],\"\\\\# \n\r]|(?s).){0,40}") {
        if let Ok(template) = Template::parse(&text) {
            prop_assert!(template.check().is_ok());
            prop_assert_eq!(Template::parse(&template.to_text()).expect("our own text"), template);
        }
    }
}
