use super::decode::unescape;
use super::*;
use crate::testing::{mutations, recording};
use proptest::prelude::*;

fn texts() -> Vec<String> {
    [
        "001-system-version",
        "023-bad-auth",
        "026-fault-no-such-method",
        "101-vmpool-info-all",
        "m01-system-multicall-mixed",
    ]
    .map(|name| String::from_utf8(recording(name)).expect("text"))
    .into()
}

fn in_array(values: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><methodResponse><params><param><value><array><data>{values}</data></array></value></param></params></methodResponse>"
    )
}

#[test]
fn recorded_answers_are_read() {
    assert_eq!(
        answer(&recording("001-system-version")),
        Ok(Answer::Done(Value::Text("7.4.1".into())))
    );
    assert_eq!(
        answer(&recording("007-template-instantiate-ok")),
        Ok(Answer::Done(Value::Int(0)))
    );
    assert_eq!(
        answer(&recording("025-vm-info-no-such")),
        Ok(Answer::Refused {
            code: 0x400,
            message: "[one.vm.info] Error getting virtual machine [999999].".into()
        })
    );
    assert_eq!(
        answer(&recording("026-fault-no-such-method")),
        Ok(Answer::Fault {
            code: -506,
            message: "Method 'one.vm.nosuch' not defined".into()
        })
    );
    // A multicall's answer is no list of ours, but it is read to its end.
    assert_eq!(
        answer(&recording("m01-system-multicall-mixed")),
        Err(Malformed::other("a list that no oned gives"))
    );
}

#[test]
fn a_call_is_xml_rpc() {
    let body = call(
        "one.x",
        &[Arg::Text("a<b>&\"'\r\n"), Arg::Int(-2), Arg::Bool(true)],
    )
    .expect("a call");
    assert_eq!(
        body,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<methodCall><methodName>one.x</methodName><params>\
         <param><value><string>a&lt;b&gt;&amp;\"'&#13;\n</string></value></param>\
         <param><value><int>-2</int></value></param>\
         <param><value><boolean>1</boolean></value></param></params></methodCall>\n"
    );
}

#[test]
fn what_xml_cannot_hold_is_refused_by_its_number_alone() {
    for c in ['\0', '\u{1}', '\u{b}', '\u{1f}', '\u{ffff}'] {
        let error = call("one.x", &[Arg::Text(&format!("hidden{c}"))]).expect_err("refused");
        assert!(
            error.text.contains("\\u{") && !error.text.contains("hidden"),
            "{error}"
        );
    }
}

#[test]
fn odd_but_right_answers_are_read() {
    let yes = "<value><boolean>1</boolean></value>";
    for (value, read) in [
        (
            "<value>bare &lt;text&gt;</value>",
            Value::Text("bare <text>".into()),
        ),
        ("<value></value>", Value::Text(String::new())),
        ("<value><string/></value>", Value::Text(String::new())),
        ("<value>\n <i8> -7 </i8>\n</value>", Value::Int(-7)),
        ("<value><int>7</int></value>", Value::Int(7)),
        ("<value><array><data/></array></value>", Value::Array(Vec::new())),
        (
            "<value><string>&#x41;&#66;&quot;&apos;&amp;lt;</string></value>",
            Value::Text("AB\"'&lt;".into()),
        ),
    ] {
        assert_eq!(
            answer(in_array(&format!("{yes}{value}")).as_bytes()),
            Ok(Answer::Done(read)),
            "{value}"
        );
    }
}

#[test]
fn hostile_answers_are_refused() {
    let bomb = "<?xml version=\"1.0\"?><!DOCTYPE x [<!ENTITY a \"aaaa\">]><methodResponse/>";
    assert_eq!(answer(bomb.as_bytes()), Err(Malformed::other("it has a DTD")));
    let entity = in_array("<value><boolean>1</boolean></value><value><string>&a;</string></value>");
    assert!(matches!(answer(entity.as_bytes()), Err(Malformed::Other(why)) if why.contains("&a;")));
    let deep = "<value><array><data>".repeat(100_000);
    assert!(matches!(
        answer(in_array(&deep).as_bytes()),
        Err(Malformed::Other(_))
    ));
    let many = "<value/>".repeat(10);
    assert!(answer(in_array(&many).as_bytes()).is_err());
    let many = "<value></value>".repeat(200_000);
    assert!(
        matches!(answer(in_array(&many).as_bytes()), Err(Malformed::Other(why)) if why.contains("too many"))
    );
    let huge = vec![0; LARGEST_ANSWER + 1];
    assert!(matches!(answer(&huge), Err(Malformed::Other(why)) if why.contains("larger")));
}

#[test]
fn what_is_cut_off_is_never_an_answer() {
    for text in texts() {
        let whole = text.trim_end().len();
        for end in (0..whole).filter(|end| whole - end < 300 || *end < 300 || end % 97 == 0) {
            assert!(answer(&text.as_bytes()[..end]).is_err(), "cut at {end}");
        }
        assert_eq!(answer(&text.as_bytes()[..whole - 3]), Err(Malformed::CutOff));
        assert_eq!(answer(&text.as_bytes()[..200]), Err(Malformed::CutOff));
    }
}

#[test]
fn one_bad_byte_does_not_hide_all() {
    let mut body = recording("101-vmpool-info-all");
    let at = memchr::memmem::find(&body, b"rec-alloc").expect("a name");
    body[at] = 0xff;
    let Ok(Answer::Done(Value::Text(text))) = answer(&body) else {
        panic!("no text");
    };
    assert!(text.contains("\u{fffd}ec-alloc"));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = answer(&bytes);
    }

    #[test]
    fn any_tags_are_read_or_refused(pieces in prop::collection::vec(prop::sample::select(vec![
        "<methodResponse>", "</methodResponse>", "<params>", "</params>", "<param>", "</param>", "<value>",
        "</value>", "<array>", "</array>", "<data>", "</data>", "<data/>", "<struct>", "</struct>", "<member>",
        "</member>", "<name>", "</name>", "<fault>", "</fault>", "<string>", "</string>", "<i4>", "</i4>", "1",
        "&lt;", "&", "&#0;", "&#x110000;", "<!--", "-->", "<?", "?>", "<", ">", "é",
    ]), 0..40)) {
        let _ = answer(pieces.concat().as_bytes());
    }

    #[test]
    fn changed_recordings_are_read_or_refused(changes in mutations(), which in 0usize..5) {
        let _ = answer(&changes.of(texts()[which].as_bytes()));
    }

    #[test]
    fn every_text_comes_back(text in "\\PC*|[\\t\\n\\r<>&'\"a;#]*") {
        let sent = call("one.x", &[Arg::Text(&text)]).expect("a call");
        let (_, sent) = sent.split_once("<string>").expect("a text");
        let (sent, _) = sent.split_once("</string>").expect("its end");
        prop_assert_eq!(unescape(sent).expect("entities"), text.as_str());
        let yes = "<value><boolean>1</boolean></value>";
        let body = in_array(&format!("{yes}<value><string>{sent}</string></value>"));
        prop_assert_eq!(answer(body.as_bytes()), Ok(Answer::Done(Value::Text(text))));
    }
}
