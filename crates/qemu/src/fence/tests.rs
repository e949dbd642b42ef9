use super::*;

fn rules() -> Rules {
    Rules {
        table: table_of(&ClusterName::new("a-b.c").unwrap()),
        host: Ipv4Addr::new(10, 84, 0, 1),
        prefix_len: 16,
        slurmctlds: vec![(Ipv4Addr::new(10, 84, 0, 1), 6817)],
        any_port: (32_768, 60_999),
        allow: vec![Allowed {
            address: Ipv4Addr::UNSPECIFIED,
            prefix_len: 0,
            ports: Some((53, 53)),
        }],
    }
}

fn vm(n: u8, group: u32, exports: &[u16]) -> Fenced {
    Fenced {
        vm: VmId::new(&format!("fg{n}.1")).unwrap(),
        tap: format!("th0a5400{n:02x}"),
        mac: [2, 0, 10, 84, 0, n],
        address: Ipv4Addr::new(10, 84, 0, n),
        group,
        exports: exports.iter().copied().collect(),
    }
}

#[test]
fn the_tables_name_is_one_that_nft_takes() {
    assert_eq!(rules().table, "thiao_a_b_c");
}

#[test]
fn the_whole_is_one_transaction_that_begins_with_nothing() {
    let whole = rules().whole([vm(2, 7, &[20_481])].iter(), [].iter());
    let commands = whole["nftables"].as_array().unwrap();
    let first: Vec<&String> = commands
        .iter()
        .take(3)
        .map(|command| command.as_object().unwrap().keys().next().unwrap())
        .collect();
    assert_eq!(first, ["add", "delete", "add"]);
    let text = whole.to_string();
    for wanted in ["02:00:0a:54:00:02", "10.84.0.2", "th0a540002", "20481"] {
        assert!(text.contains(wanted), "{wanted} is missing");
    }
    // What allows everybody an address says no prefix, which nft would refuse.
    assert!(!text.contains("0.0.0.0"), "{text}");
}

#[test]
fn what_is_let_in_is_forgotten_by_the_same_words() {
    let vm = vm(3, POWER_SAVING, &[20_481, 20_482]);
    let (admit, forget) = (rules().admit(&vm), rules().forget(&vm));
    let names = |commands: &serde_json::Value, verb: &str| -> Vec<String> {
        let all = commands["nftables"].as_array().unwrap().iter();
        all.filter_map(|command| command[verb]["element"]["name"].as_str().map(str::to_owned))
            .collect()
    };
    let all = ["taps", "cards", "groups", "members", "exports"];
    assert_eq!(names(&admit, "add"), all);
    assert_eq!(names(&forget, "delete"), all);
}

#[test]
fn only_its_own_address_opens_this_machine() {
    // How many rules of a chain are about the port that is allowed.
    let opened = |address: &str, prefix_len: u8, chain: &str| {
        let allow = Allowed {
            address: address.parse().unwrap(),
            prefix_len,
            ports: Some((4243, 4243)),
        };
        let rules = Rules {
            allow: vec![allow],
            ..rules()
        };
        let whole = rules.whole([].iter(), [].iter());
        let commands = whole["nftables"].as_array().unwrap().iter();
        commands
            .map(|command| &command["add"]["rule"])
            .filter(|rule| rule["chain"] == chain && rule.to_string().contains("4243"))
            .count()
    };
    for (address, prefix_len) in [("10.0.0.0", 8), ("0.0.0.0", 0), ("10.84.0.0", 31)] {
        assert_eq!(opened(address, prefix_len, "host"), 0, "{address}/{prefix_len}");
        assert_eq!(opened(address, prefix_len, "out"), 2, "{address}/{prefix_len}");
    }
    assert_eq!(opened("10.84.0.1", 32, "host"), 2, "TCP and UDP");
}
