//! The numbered cases of the older system that need no network, by number.
//!
//! The numbers are those of the list of black-box cases that this crate is held to; those not here need a
//! cloud or an ssh server and are tested where these are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use haar_cloud::copy_list::CopyList;
use haar_cloud::fault::{Answer, ServerFault};
use haar_cloud::flavor::{Flavor, List, Need, Pattern, Wanted, parse_sets};
use haar_cloud::image::{By, Image, boot_disk, choose};
use haar_cloud::life::{Destruction, Life, Tick};
use haar_cloud::name::{ResourceName, host_name};
use haar_cloud::pace::{Boot, Pace};
use haar_cloud::quota::{Quota, Usage, limit};
use haar_cloud::space::{Cores, Request, Space};
use haar_cloud::{Error, env};

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn ask(cores: f64, ram_mb: u64, disk_gb: u64) -> Request {
    Request { cores: Cores::from_f64(cores).expect("a number of cores"), ram_mb, disk_gb }
}

#[test]
fn case_01_the_variables_of_a_provider_are_listed_in_order() {
    let required = ["OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "OS_REGION_NAME"];
    assert_eq!(env::required("openstack").unwrap(), required);
    let maybe = [
        "OS_USERID",
        "OS_TENANT_ID",
        "OS_TENANT_NAME",
        "OS_DOMAIN_ID",
        "OS_PROJECT_DOMAIN_ID",
        "OS_DOMAIN_NAME",
        "OS_USER_DOMAIN_NAME",
        "OS_PROJECT_ID",
        "OS_PROJECT_NAME",
        "OS_POOL_NAME",
    ];
    assert_eq!(env::maybe("openstack").unwrap(), maybe);
    assert_eq!(env::all("openstack").unwrap(), [&required[..], &maybe[..]].concat());
    for unknown in ["aws", "x", "", "OpenStack"] {
        let answers = [
            env::required(unknown).map(<[_]>::len),
            env::maybe(unknown).map(<[_]>::len),
            env::all(unknown).map(|all| all.len()),
        ];
        for answer in answers {
            assert!(matches!(answer, Err(Error::UnknownProvider { name }) if name == unknown));
        }
    }
}

#[test]
fn case_02_what_is_missing_is_named_together() {
    let set = |name: &str| matches!(name, "OS_AUTH_URL" | "OS_USERNAME").then(|| "x".to_owned());
    let error = env::login(set, |_| false).unwrap_err().to_string();
    assert!(error.contains("OS_PASSWORD, OS_REGION_NAME"), "{error}");
}

#[test]
fn case_03_a_resource_name_has_few_signs() {
    for good in ["a-b_c 1", "A", "_", "-", " "] {
        assert_eq!(ResourceName::parse(good).unwrap().as_str(), good);
    }
    for bad in ["a/b", "a.b", "é", "", "a\n", "a\0", "..", "a:b", "٣"] {
        assert!(matches!(ResourceName::parse(bad), Err(Error::BadName { name, .. }) if name == bad));
    }
    for sign in '\0'..='\u{ff}' {
        let allowed = sign.is_ascii_alphanumeric() || "_ -".contains(sign);
        assert_eq!(ResourceName::parse(&format!("a{sign}")).is_ok(), allowed, "{sign:?}");
    }
}

#[test]
fn case_04_a_host_name_comes_from_a_name() {
    let cases = [
        ("teSt-123-one", "test-123-one"),
        ("test_123-one", "test-123-one"),
        ("test_123*ONE", "test-123-one"),
        ("test-123-one", "test-123-one"),
        ("A__b", "a-b"),
    ];
    for (name, host) in cases {
        assert_eq!(host_name(name), host);
    }
    assert_eq!(host_name(&"x".repeat(80)).len(), 63);
}

fn flavor(name: &str, cores: u32, ram_mb: u64, disk_gb: u64) -> Flavor {
    Flavor { id: format!("id-{name}"), name: name.to_owned(), cores, ram_mb, disk_gb }
}

fn four_flavors() -> Vec<Flavor> {
    vec![flavor("a", 1, 1024, 10), flavor("b", 1, 1024, 5), flavor("c", 1, 2048, 5), flavor("d", 2, 1024, 1)]
}

fn wanted(cores: u32, ram_mb: u64, pattern: Option<&Pattern>) -> Wanted<'_> {
    Wanted { need: Need { cores: Cores::whole(cores), ram_mb }, pattern, prices: None }
}

#[test]
fn case_10_the_cheapest_flavor_is_always_the_same() {
    let flavors = four_flavors();
    let cases =
        [(1, 1024, "", "b"), (1, 1025, "", "c"), (2, 1, "", "d"), (1, 1, "^c$", "c"), (0, 0, "", "b")];
    for (cores, ram_mb, pattern, name) in cases {
        let pattern = Pattern::parse_or_all(pattern).unwrap();
        let mut shuffled = flavors.clone();
        for turn in 0..100 {
            shuffled.rotate_left(turn % 3 + 1);
            let chosen = wanted(cores, ram_mb, pattern.as_ref()).cheapest(&shuffled).unwrap();
            assert_eq!(chosen.name, name);
        }
    }
    assert!(matches!(Pattern::parse("("), Err(Error::BadPattern { .. })));
    let none = Pattern::parse("^zz").unwrap();
    let error = wanted(1, 1, Some(&none)).cheapest(&flavors).unwrap_err();
    assert!(matches!(&error, Error::NoFlavor { pattern, .. } if pattern == "^zz"), "{error:?}");
}

#[test]
fn case_11_defect_14_sets_are_answered_in_their_order_with_gaps() {
    let flavors = four_flavors();
    let sets = parse_sets("^a$;^d$,^c$;^zz$").unwrap();
    let names = |sets: &[_]| -> Vec<Option<String>> {
        let chosen = wanted(1, 1, None).cheapest_of_each(&flavors, sets).unwrap();
        chosen.iter().map(|flavor| flavor.map(|flavor| flavor.name.clone())).collect()
    };
    assert_eq!(names(&sets), [Some("a".to_owned()), Some("c".to_owned()), None]);
    assert_eq!(names(&[]), [Some("b".to_owned())]);
    assert!(matches!(wanted(9, 1, None).cheapest_of_each(&flavors, &[]), Err(Error::NoFlavor { .. })));
    assert!(matches!(parse_sets("m1;"), Err(Error::BadPattern { .. })));
}

#[test]
fn case_12_defect_12_a_vanished_flavor_is_not_offered_and_a_failed_refresh_keeps_the_list() {
    let mut list = List::default();
    list.refresh::<Error>(seconds(0), Ok(four_flavors())).unwrap();
    let failed = Error::Transient { what: "flavors".into(), message: "503".into(), retry_after: None };
    assert!(list.is_due(seconds(1800)) && list.refresh(seconds(1800), Err(failed)).is_err());
    assert_eq!(wanted(1, 1, None).cheapest(list.offered()).unwrap().name, "b");
    assert!(list.is_due(seconds(1800)), "the next call asks again");
    let without_b = four_flavors().into_iter().filter(|flavor| flavor.name != "b").collect();
    list.refresh::<Error>(seconds(1801), Ok(without_b)).unwrap();
    assert_eq!(wanted(1, 1, None).cheapest(list.offered()).unwrap().name, "a");
}

fn image(name: &str, day: &str, min_disk_gb: u64) -> Image {
    let created_at = Some(format!("{day}T00:00:00Z").parse().expect("a day"));
    Image { id: format!("id-{name}"), name: name.to_owned(), created_at, min_disk_gb, min_ram_mb: 0 }
}

#[test]
fn case_13_defect_13_a_prefix_means_the_newest_image() {
    let (older, newer) = (image("ubuntu-20", "2020-04-23", 0), image("ubuntu-22", "2022-04-21", 0));
    for images in [[older.clone(), newer.clone()], [newer.clone(), older.clone()]] {
        let choice = choose(&images, "ub").unwrap();
        assert_eq!((&choice.image.name, choice.among), (&newer.name, 2));
        let choice = choose(&images, "ubuntu-20").unwrap();
        assert_eq!((&choice.image.name, choice.by), (&older.name, By::Name));
        let error = choose(&images, "debian").unwrap_err();
        assert!(error.is_not_found() && error.to_string().contains("[debian]"), "{error}");
    }
}

#[test]
fn case_14_a_disk_that_is_too_small_becomes_a_volume() {
    let image = image("a", "2026-01-01", 20);
    for (asked, flavor, volume, server) in
        [(1, 10, Some(20), 20), (1, 20, None, 20), (50, 20, Some(50), 50), (0, 80, None, 80)]
    {
        let disk = boot_disk(&image, asked, flavor);
        assert_eq!((disk.volume_gb, disk.server_gb), (volume, server), "asked {asked}, flavor {flavor}");
    }
}

#[test]
fn case_16_defect_09_no_hardware_and_no_quota_are_told_apart() {
    let no_hardware = [
        "No valid host was found. ",
        "No valid host was found. There are not enough hosts available.",
        "Exceeded maximum number of retries. Exhausted all hosts available for retrying build failures for instance 1.",
    ];
    for message in no_hardware {
        let error = ServerFault { code: 500, message }.error("s");
        assert!(error.is_no_hardware() && !error.is_over_quota(), "{error:?}");
    }
    let body = br#"{"forbidden":{"code":403,"message":"Quota exceeded for instances: Requested 1, but already used 10 of 10 instances"}}"#;
    let error = Answer { kind: "server", name: "s", status: 403, body, retry_after: None }.error();
    assert!(error.is_over_quota() && !error.is_no_hardware());
    assert!(error.to_string().contains("instances: 1 needed, 0 left"), "{error}");
}

#[test]
fn case_17_the_limit_of_a_spawn_follows_what_was_seen() {
    let limit_after = |times: &[u64]| {
        let mut pace = Pace::default();
        for took in times {
            pace.succeeded("f", "i", Boot::Plain, seconds(*took));
        }
        pace.limit(Boot::Plain)
    };
    assert_eq!(limit_after(&[]), seconds(1200));
    assert_eq!(limit_after(&[10, 10, 10]), seconds(180));
    assert_eq!(limit_after(&[100, 100, 100]), seconds(400));
}

#[test]
fn case_18_after_failures_the_waits_grow_to_a_minute_and_success_ends_them() {
    let mut pace = Pace::default();
    assert_eq!(pace.wait("f", "i", 1.0), Duration::ZERO);
    for (began, longest) in (0..).zip([1.0, 1.5, 2.25, 3.375]) {
        pace.failed("f", "i", seconds(began), seconds(began));
        let (least, most) = (pace.wait("f", "i", 0.0), pace.wait("f", "i", 1.0));
        assert_eq!((least, most), (seconds(1), Duration::from_secs_f64(longest)));
    }
    (10..110).for_each(|began| pace.failed("f", "i", seconds(began), seconds(began)));
    assert_eq!(pace.wait("f", "i", 1.0), seconds(60));
    pace.succeeded("f", "i", Boot::Plain, seconds(1));
    assert_eq!(pace.wait("f", "i", 1.0), Duration::ZERO);
}

#[test]
fn case_25_room_is_counted_to_the_thousandth() {
    let four = Space::new(4, 8000, 20);
    let vectors = [
        (ask(1.0, 0, 0), 4),
        (ask(0.5, 0, 0), 8),
        (ask(1.0, 3000, 0), 2),
        (ask(0.0, 0, 0), 8),
        (ask(0.0, 5000, 0), 1),
        (ask(1.0, 8001, 0), 0),
        (ask(1.0, 0, 7), 2),
        (ask(4.001, 0, 0), 0),
    ];
    for (request, room) in vectors {
        assert_eq!(four.room_for(&request), room, "{request:?}");
    }
    let mut one = Space::new(1, 100, 10);
    let tenth = ask(0.1, 0, 0);
    (0..10).for_each(|_| one.allocate(&tenth).unwrap());
    assert!(one.allocate(&tenth).is_err());
    (0..10).for_each(|_| one.release(&tenth));
    assert_eq!(one.room_for(&ask(1.0, 0, 0)), 1);
    let mut four = four;
    (0..8).for_each(|_| four.allocate(&ask(0.0, 1, 0)).unwrap());
    assert!(four.allocate(&ask(0.0, 1, 0)).is_err());
    assert_eq!(four.room_for(&ask(1.0, 0, 0)), 4);
}

#[test]
fn case_26_an_idle_server_goes_and_a_used_one_stays() {
    let mut life = Life::new(Space::new(1, 100, 10), seconds(2));
    let work = ask(1.0, 1, 1);
    assert_eq!(life.tick(seconds(3)), Tick::Nothing, "never used");
    life.allocate(&work).unwrap();
    life.release(seconds(10), &work);
    life.allocate(&work).unwrap();
    assert_eq!(life.tick(seconds(14)), Tick::Nothing, "taken again at 11");
    life.release(seconds(14), &work);
    assert_eq!(life.tick(seconds(14)), Tick::LookAt(seconds(16)));
    assert_eq!(life.tick(seconds(16)), Tick::Destroy);
    assert!(life.is_destroyed() && life.allocate(&work).is_err());
}

#[test]
fn case_27_health_has_an_age_and_a_problem_that_stays() {
    let mut life = Life::new(Space::new(1, 100, 10), seconds(2));
    assert_eq!((life.is_bad(), life.bad_for(seconds(9))), (false, seconds(0)));
    life.gone_bad(seconds(10), None);
    life.gone_bad(seconds(12), None);
    assert_eq!((life.is_bad(), life.bad_for(seconds(15))), (true, seconds(5)));
    assert!(life.not_bad() && !life.is_bad());
    life.gone_bad(seconds(20), Some("x"));
    life.gone_bad(seconds(21), None);
    assert!(!life.not_bad());
    assert_eq!(life.permanent_problem(), Some("x"));
    let mut other = Life::new(Space::new(1, 100, 10), seconds(2));
    assert_eq!(other.destroy(seconds(30)), Destruction::Begin { commands: 0 });
    assert!(other.is_bad() && !other.not_bad());
}

#[test]
fn case_31_a_copy_list_names_both_sides() {
    let list = CopyList::parse("~/a,/x/y:~/d/z,~/missing").unwrap();
    let (here, there) = (Path::new("/root"), Path::new("/srv/debian"));
    let sides = |item: &haar_cloud::copy_list::Item| (item.local.resolve(here), item.remote.resolve(there));
    let sides: Vec<(PathBuf, PathBuf)> = list.items().iter().map(sides).collect();
    let expected =
        [("/root/a", "/srv/debian/a"), ("/x/y", "/srv/debian/d/z"), ("/root/missing", "/srv/debian/missing")];
    assert_eq!(sides, expected.map(|(local, remote)| (local.into(), remote.into())));
    let odd = CopyList::parse("/a b's:~/c d's").unwrap();
    assert_eq!(odd.items()[0].remote.resolve(there), there.join("c d's"));
}

#[test]
fn case_34_defect_11_unlimited_is_no_number_and_an_unknown_flavor_counts_as_an_instance() {
    let known = flavor("a", 2, 4000, 10);
    let used = Usage::of_servers([Some(&known), Some(&known), Some(&known), None]);
    assert_eq!((used.instances, used.cores, used.ram_mb, used.unknown_flavors), (4, 6, 12000, 1));
    assert_eq!((limit(-1), limit(0), limit(7)), (None, Some(0), Some(7)));
    let quota = Quota { max_instances: limit(-1), max_cores: limit(7), used, ..Quota::default() };
    let error = quota.check(&Usage::of_spawn(&known, None), &Usage::default()).unwrap_err();
    assert!(error.is_over_quota() && error.to_string().contains("cores: 2 needed, 1 left"), "{error}");
}

/// Case 26 again, by lot: a thousand lives of up to sixty inputs.
mod case_26_by_lot {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Input {
        Allocate(u64),
        Release(usize),
        CommandBegins,
        CommandEnds,
        Bad(bool),
        NotBad,
        Look,
        Destroy,
        DestroyFails,
    }

    fn input() -> impl Strategy<Value = (u64, Input)> {
        let what = prop_oneof![
            8 => (0_u64..1500).prop_map(Input::Allocate),
            8 => (0_usize..8).prop_map(Input::Release),
            3 => Just(Input::CommandBegins),
            3 => Just(Input::CommandEnds),
            1 => any::<bool>().prop_map(Input::Bad),
            1 => Just(Input::NotBad),
            12 => Just(Input::Look),
            1 => Just(Input::Destroy),
            1 => Just(Input::DestroyFails),
        ];
        (0_u64..1500, what)
    }

    /// The books of an outsider.
    #[derive(Default)]
    struct Books {
        work: Vec<Request>,
        commands: u32,
        idle_since: Option<u64>,
        destroyed: bool,
    }

    impl Books {
        fn rest(&mut self, now: u64) {
            if self.work.is_empty() && self.commands == 0 {
                self.idle_since = Some(now);
            }
        }

        fn end(&mut self) {
            *self = Self { destroyed: true, ..Self::default() };
        }
    }

    const TTD_MS: u64 = 2000;

    fn step(life: &mut Life, books: &mut Books, now: u64, input: &Input) -> Result<(), TestCaseError> {
        let clock = Duration::from_millis(now);
        match input {
            Input::Allocate(thousandths) => {
                let cores = Cores::from_f64(*thousandths as f64 / 1000.0).expect("a number of cores");
                let request = Request { cores, ram_mb: 1, disk_gb: 1 };
                let room = life.room_for(&request);
                let taken = life.allocate(&request).is_ok();
                prop_assert_eq!(taken, room > 0);
                prop_assert!(!(taken && books.destroyed), "allocated and destroyed");
                if taken {
                    books.work.push(request);
                    books.idle_since = None;
                }
            }
            Input::Release(which) if *which < books.work.len() => {
                let request = books.work.swap_remove(*which);
                life.release(clock, &request);
                books.rest(now);
            }
            Input::CommandBegins => {
                prop_assert_eq!(life.command_began().is_err(), books.destroyed);
                if !books.destroyed {
                    books.commands += 1;
                    books.idle_since = None;
                }
            }
            Input::CommandEnds if books.commands > 0 => {
                life.command_ended(clock);
                books.commands -= 1;
                books.rest(now);
            }
            Input::Look => {
                let over = books.idle_since.is_some_and(|since| now >= since + TTD_MS);
                prop_assert_eq!(life.tick(clock) == Tick::Destroy, over);
                if over {
                    prop_assert!(books.work.is_empty() && books.commands == 0);
                    books.end();
                }
            }
            Input::Destroy => {
                let _ = life.destroy(clock);
                books.end();
            }
            Input::Bad(for_good) => life.gone_bad(clock, for_good.then_some("x")),
            Input::NotBad => prop_assert!(!(life.not_bad() && books.destroyed)),
            Input::DestroyFails => life.destroy_failed(),
            Input::Release(_) | Input::CommandEnds => {}
        }
        prop_assert_eq!(life.is_destroyed(), books.destroyed);
        prop_assert_eq!(life.space().is_empty(), books.work.is_empty());
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]
        #[test]
        fn case_26_defect_19_nothing_is_ever_allocated_and_destroyed(inputs in prop::collection::vec(input(), 1..60)) {
            let mut life = Life::new(Space::new(4, 100, 100), Duration::from_millis(TTD_MS));
            let mut books = Books::default();
            let mut now = 0;
            for (pause, input) in &inputs {
                now += pause;
                step(&mut life, &mut books, now, input)?;
            }
        }
    }
}
