//! People who take away what VMs are made from: templates and images.

use thiao_oned::settings::Settings;
use thiao_testkit::day::Day;
use thiao_testkit::site::rounds;
use thiao_testkit::wait::until;

const BODY: &str = "CPU=\"1\"\nMEMORY=\"64\"\nNIC=[NETWORK=\"cluster\"]\nCONTEXT=[NETWORK=\"YES\"]\n";

/// `onetemplate chmod ID` and `oneimage chmod ID`: whether others have USE of it.
fn use_of_others(day: &Day, what: &str, id: u32, may: bool) {
    let id = format!("<int>{id}</int>");
    let (leave, others) = ("<int>-1</int>", format!("<int>{}</int>", u8::from(may)));
    let rights = [leave, leave, leave, leave, leave, leave, &others, leave, leave];
    let mut params = vec![id.as_str()];
    params.extend(rights);
    day.by_hand(&format!("one.{what}.chmod"), &params);
}

/// The VM that runs stays as it is; the next one cannot be made, and its node is told.
#[track_caller]
fn costs_the_next_one_alone(day: &mut Day, words: &str) {
    for _ in 0..3 {
        rounds();
    }
    assert_eq!(
        (day.running(), day.site.told()),
        (1, String::new()),
        "nothing for what runs"
    );
    day.resume("n1");
    day.until_told("state=DOWN");
    day.until_told(words);
    assert_eq!(day.running(), 1);
}

/// A day with one node up, and another that is down.
fn day(change: impl FnOnce(&mut Settings)) -> Day {
    begin(Day::with(2, change, ""))
}

/// The same, with VMs that have a disc of an image of somebody else's.
fn day_with_a_disc() -> Day {
    let disc = "DISK=[IMAGE=\"img\",IMAGE_UNAME=\"oneadmin\"]\n";
    let day = Day::with(2, |settings| settings.templates[0].body.push_str(disc), "");
    use_of_others(&day, "image", 0, true);
    begin(day)
}

fn begin(mut day: Day) -> Day {
    day.resume("n0");
    day.start();
    day.until_running(1);
    day.all_nodes_are("idle+cloud+powered_down");
    day.node_up("n0");
    day
}

#[test]
fn a_deleted_template_costs_new_vms_until_another_has_its_name() {
    let mut day = day(|_| ());
    day.by_hand("one.template.delete", &["<int>0</int>"]);
    costs_the_next_one_alone(&mut day, "no template named");
    let again = format!("<string>NAME=\"worker\"\n{BODY}</string>");
    let made = day.by_hand("one.template.allocate", &[&again]);
    assert!(
        made.contains("<i4>1</i4>") || made.contains("<int>1</int>"),
        "{made}"
    );
    use_of_others(&day, "template", 1, true);
    day.returns("n1");
}

#[test]
fn a_template_that_may_not_be_used_costs_new_vms_until_it_may() {
    let mut day = day(|_| ());
    use_of_others(&day, "template", 0, false);
    costs_the_next_one_alone(&mut day, "USE TEMPLATE");
    use_of_others(&day, "template", 0, true);
    day.returns("n1");
}

/// OpenNebula itself deletes no image that VMs use.
#[test]
fn an_image_is_not_deleted_under_its_vms_and_costs_new_ones_when_it_is_gone() {
    let mut day = day_with_a_disc();
    let said = day.refused("one.image.delete", &["<int>0</int>"]);
    assert!(said.contains("There are 1 VMs using it"), "{said}");
    day.wakes_again("n0");
    day.suspend("n0");
    day.until_none();
    day.by_hand("one.image.delete", &["<int>0</int>"]);
    day.resume("n1");
    day.until_told("state=DOWN");
    day.until_told("does not own an image with name");
    // One of that name is there again.
    let again = "<string>NAME=\"img\"\nTYPE=\"OS\"\nPATH=\"/var/tmp/fake.img\"\n</string>";
    let made = day.by_hand("one.image.allocate", &[again, "<int>1</int>"]);
    assert!(
        made.contains("<i4>1</i4>") || made.contains("<int>1</int>"),
        "{made}"
    );
    use_of_others(&day, "image", 1, true);
    day.returns("n1");
}

/// Nothing of Thiao's: what a guest does without its disc, its job sees.
#[test]
fn a_vm_whose_disc_is_taken_by_hand_goes_on() {
    let mut day = day_with_a_disc();
    let vm = format!("<int>{}</int>", day.vm());
    let said = day.refused("one.vm.detach", &[&vm, "<int>7</int>"]);
    assert!(said.contains("VM disk does not exist"), "{said}");
    let told = |day: &Day| day.log().matches("subject=vm").count();
    let before = told(&day);
    day.by_hand("one.vm.detach", &[&vm, "<int>0</int>"]);
    // It uses the image no more.
    until("it runs without", || {
        let said = day.by_hand("one.image.info", &["<int>0</int>"]);
        day.running() == 1 && said.contains("RUNNING_VMS&gt;0&lt;")
    });
    for _ in 0..4 {
        rounds();
    }
    assert_eq!((day.running(), day.site.told()), (1, String::new()));
    assert_eq!(told(&day), before, "{}", day.log());
    day.wakes_again("n0");
}

#[test]
fn an_image_that_may_not_be_used_costs_new_vms_until_it_may() {
    let mut day = day_with_a_disc();
    use_of_others(&day, "image", 0, false);
    costs_the_next_one_alone(&mut day, "USE IMAGE");
    use_of_others(&day, "image", 0, true);
    day.returns("n1");
}

/// Nobody can make VMs then; what is there is ended all the same, and nodes are told why they get none.
#[test]
fn a_controller_that_starts_without_its_only_template_still_ends_vms() {
    let mut day = day(|_| ());
    day.kill();
    day.by_hand("one.template.delete", &["<int>0</int>"]);
    day.start();
    day.until_logged("no VM can be made for n[0-1]");
    day.resume("n1");
    day.until_told("no template named");
    day.suspend("n0");
    day.until_none();
    let again = format!("<string>NAME=\"worker\"\n{BODY}</string>");
    day.by_hand("one.template.allocate", &[&again]);
    use_of_others(&day, "template", 1, true);
    day.returns("n1");
}
