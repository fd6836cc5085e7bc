//! Lists and several targets: the order, the labels, projects nobody has, and nothing done over a wrong name.

use serde_json::Value;

use super::MIB;
use super::between::{Between, answer, problem};
use super::cloud::{Agent, Cloud, Luck};

/// The first words of a list's lines, without its head.
fn first_words(list: &str) -> Vec<&str> {
    list.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_by_name_and_jobs_by_time() {
    let cloud = Cloud::start().await;
    let _agent = Agent::join(&cloud, Luck::Good).await;
    let file = cloud.file("tiny.raw", &vec![7; MIB]);
    cloud.haar(&format!("image import tiny {file}")).await.well();
    let names = ["delta", "alpha", "echo", "bravo", "foxtrot", "charlie"];
    for name in names {
        cloud.haar(&format!("guest create {name} --image tiny")).await.well();
    }
    let list = cloud.haar("guest list").await.well();
    assert_eq!(first_words(&list), ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot"]);
    let document = cloud.haar("guest list -o json").await.json();
    let listed: Vec<&str> =
        document["items"].as_array().unwrap().iter().filter_map(|guest| guest["name"].as_str()).collect();
    assert_eq!(listed, ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot"]);
    let jobs = cloud.haar("job list").await.well();
    let guests: Vec<&str> = jobs.lines().skip(1).filter_map(|line| line.split_whitespace().nth(3)).collect();
    assert_eq!(guests, names, "the newest is last: {jobs}");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_labels_and_is_narrowed_by_them() {
    let cloud = Cloud::start().await;
    for (name, label) in [("one", "team=web"), ("two", "team=db"), ("three", "team=web")] {
        cloud.haar(&format!("network create {name} --metadata {label}")).await.well();
    }
    let list = cloud.haar("network list --label team=web --show-labels").await.well();
    assert_eq!(first_words(&list), ["one", "three"]);
    assert!(list.lines().next().unwrap().contains("LABELS") && list.contains("team=web"), "{list}");
    assert_eq!(first_words(&cloud.haar("network list --label team").await.well()), ["one", "three", "two"]);
    assert!(!cloud.haar("network list").await.well().contains("team="), "only where they are asked for");
    let document = cloud.haar("network list --label team=db -o json").await.json();
    assert_eq!(document["items"].as_array().unwrap().len(), 1);
    assert_eq!(cloud.haar("network list --label x=y").await.well(), "  no networks with label x=y\n");
    assert_eq!(cloud.haar("guest list --label x").await.well(), "  no guests with label x\n");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_nothing_is_in_is_said() {
    let cloud = Cloud::start().await;
    cloud.haar("network create lab --project lab").await.well();
    let said = cloud.haar("guest list --project nope").await.well();
    assert_eq!(said, "  no guests: nothing at all is in a project `nope`; there is default, lab\n");
    assert_eq!(cloud.haar("guest list --project lab").await.well(), "  no guests in project lab\n");
    assert_eq!(cloud.haar("job list --project nope").await.well(), "  no jobs\n", "jobs are in none");
    assert_eq!(cloud.haar("guest list --state running").await.well(), "  no such guests\n");
    let said = cloud.haar("network list --project lab --name x").await.well();
    assert_eq!(said, "  no such networks in project lab\n");

    // A project that there is costs one thing of a few nouns, and no list; what fails thereby is no failure of ours.
    let between = Between::start(&cloud, Vec::new()).await;
    between.haar(&cloud, "guest list --project lab").await.well();
    let asked = between.asked();
    assert!(asked.len() <= 5, "{asked:?}");
    assert!(
        asked[1..].iter().all(|line| line.contains("limit=1&") || line.ends_with("limit=1")),
        "{asked:?}"
    );
    let busy = vec![("GET /v1/images", problem(503, "not_ready", "not now"))];
    let between = Between::start(&cloud, busy).await;
    let said = between.haar(&cloud, "guest list --project lab").await.well();
    assert_eq!(said, "  no guests in project lab\n");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_when_one_of_several_names_is_wrong() {
    let cloud = Cloud::start().await;
    for name in ["one", "two"] {
        cloud.haar(&format!("network create {name}")).await.well();
    }
    let said = cloud.haar("network delete one typo two other").await;
    assert_eq!(said.code, 4, "{said:?}");
    for part in ["`typo`", "`other`", "nothing was done"] {
        assert!(said.err.contains(part), "{part} is missing in {}", said.err);
    }
    assert_eq!(said.out, "");
    assert_eq!(cloud.haar("network show one").await.code, 0);

    cloud.haar("subnet create one --network one --cidr 10.98.0.0/24").await.well();
    let said = cloud.haar("network delete one two").await;
    assert_eq!((said.code, said.out.as_str()), (3, "  network two deleted\n"), "{said:?}");
    assert!(said.err.ends_with("error: not done: one; done: two\n"), "{said:?}");
    let said = cloud.haar("flavor delete small small -o json").await;
    assert_eq!(said.json()["items"].as_array().unwrap().len(), 1, "one that is named twice is meant once");

    assert_eq!(cloud.haar("guest shutdown web db").await.code, 4);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_not_there_is_said_in_words_that_fit() {
    let cloud = Cloud::start().await;
    for words in ["job wait 99999999", "job show 99999999", "job retry 99999999"] {
        let said = cloud.haar(words).await;
        assert_eq!(said.code, 4, "{said:?}");
        assert!(said.err.starts_with("error: no job `99999999`; `haar job list` shows them"), "{said:?}");
    }
    assert!(cloud.haar("job show 0").await.err.starts_with("error: no job `0`; "));
    assert!(cloud.haar("job show web").await.err.starts_with("error: no job `web`; "));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_when_what_and_of_whom() {
    let cloud = Cloud::start().await;
    let from = cloud.haar("network list -o json").await.json()["revision"].as_str().unwrap().to_owned();
    cloud.haar("network create lab").await.well();
    cloud.haar("network set lab --nat true").await.well();
    cloud.haar("network delete lab").await.well();
    let said = cloud.haar(&format!("events --since {from}")).await.well();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].ends_with("network lab created"), "{said}");
    assert!(lines[1].ends_with("network lab changed   nat=true"), "{said}");
    assert!(lines[2].ends_with("network lab deleted"), "{said}");
    let at = lines[2].split_whitespace().next().unwrap();
    assert!(at.parse::<haar_api::v1::Time>().is_ok(), "{said}");
    let said = cloud.haar(&format!("events --since {from} -o json")).await.well();
    let last: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&last["name"], &last["change"]), (&Value::from("lab"), &Value::from("deleted")));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_break_off_before_their_end_are_a_failure_and_say_where_to_go_on() {
    let cloud = Cloud::start().await;
    let from = cloud.haar("network list -o json").await.json()["revision"].as_str().unwrap().to_owned();
    let ask = async |events: String| {
        let between = Between::start(&cloud, vec![("GET /v1/events?", events)]).await;
        between.haar(&cloud, &format!("events --since {from}")).await
    };
    let stream = |text: &str| answer("200 OK", "text/event-stream", text);
    let event = r#"{"kind":"guest","id":"7f3a1111-0000-4000-8000-000000000001","name":"web","change":"deleted","fields":[],"at":null,"revision":"1.9","object":null}"#;
    let change = format!("id: 1.9.0\nevent: change\ndata: {event}\n\n");

    let said = ask(stream(&change)).await;
    assert_eq!(said.code, 6, "{said:?}");
    assert!(said.out.contains("guest web deleted"), "{said:?}");
    assert!(said.err.contains("go on from there:  haar events --since 1.9.0"), "{said:?}");
    let said = ask(stream(&format!("{change}event: end\ndata: {{}}\n\n"))).await;
    assert!(said.well().contains("guest web deleted"));

    let lost = serde_json::to_string(&haar_api::problem::Problem::new(410, "resync", "list again")).unwrap();
    let said = ask(stream(&format!("{change}event: resync\ndata: {lost}\n\n"))).await;
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("list again") && !said.err.contains("--since"), "{said:?}");

    // As a controller says it that knows no end yet.
    let said = ask(problem(400, "unknown_field", "unknown field `follow`, expected `since`")).await;
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("earlier release") && said.err.contains("--follow"), "{said:?}");
    cloud.stop().await;
}
