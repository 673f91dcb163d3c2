use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Inventory, KindCoverage, MatchResult, MissReason, Object, SelectionOf};
use crate::event::git_ref::GitRef;
use crate::event::image::ImageReference;
use crate::event::repository_url::RepositoryUrl;
use crate::event::{
    BucketEvent, BucketService, ChartEvent, Event, GitChanges, GitEvent, ImageEvent, Media, RefChange,
};
use crate::expression::Expression;
use crate::filter_input::{self, FilterInput};
use crate::flux::details::{FilterFields, FilterMetadata};
use crate::flux::selection::{ResourceSelector, Selection};
use crate::flux::{Kind, Spec, Target};

fn inventory(objects: &[(Kind, &str, Value)]) -> Inventory {
    let mut inventory = Inventory::default();
    for (kind, name, spec) in objects {
        inventory.put(object(*kind, name, spec.clone()));
    }
    inventory
}

fn object(kind: Kind, name: &str, spec: Value) -> Object {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let target = Target { kind, namespace: namespace.to_owned(), name: name.to_owned() };
    let spec = serde_json::value::to_raw_value(&spec).expect("JSON");
    Object::new(target, &Spec::read(kind, Some(&spec)).expect("a spec")).expect("an object")
}

fn push(urls: &[&str], name: GitRef) -> Event {
    change(urls, RefChange::new(name))
}

fn change(urls: &[&str], change: RefChange) -> Event {
    let repository = urls.iter().map(|url| RepositoryUrl::parse(url).expect("a URL")).collect();
    Event::Git(GitEvent { repository, ssh_url: None, changes: GitChanges::Refs(vec![change]) })
}

fn image(reference: &str) -> ImageEvent {
    let ImageReference { name, tag, digest } = ImageReference::parse(reference).expect("an image");
    let written = name.to_string();
    ImageEvent {
        names: vec![name],
        written,
        tags: tag.into_iter().collect(),
        digest,
        media: Media::Unknown,
        deleted: false,
    }
}

fn find(inventory: &Inventory, events: &[Event], selection: &Selection) -> MatchResult {
    super::find(inventory, events, selection, &FilterInput::default())
}

fn names(matched: &MatchResult) -> Vec<String> {
    let mut names: Vec<String> = matched.targets.iter().map(|target| target.name.clone()).collect();
    names.sort();
    names
}

#[track_caller]
fn check(inventory: &Inventory, event: Event, expect: &[&str]) {
    let matched = find(inventory, &[event], &Selection::default());
    assert_eq!(names(&matched), expect, "{matched:?}");
}

const URL: &str = "https://github.com/org/app";

/// One object for every way to track a repository.
fn objects_that_track() -> Inventory {
    let git = |name, reference: Value| (Kind::GitRepository, name, json!({"url": URL, "ref": reference}));
    inventory(&[
        (Kind::GitRepository, "default", json!({"url": "ssh://git@github.com/Org/App.git"})),
        git("main", json!({"branch": "main"})),
        git("slashed", json!({"branch": "feature/x"})),
        git("tag", json!({"tag": "v1.2.3"})),
        git("range", json!({"semver": ">=1.0.0 <2.0.0"})),
        git("broken-range", json!({"semver": "latest"})),
        git("tag-and-range", json!({"tag": "stable", "semver": "^2"})),
        git("name", json!({"name": "refs/heads/main", "branch": "other"})),
        git("pull", json!({"name": "refs/pull/420/head"})),
        git("commit", json!({"branch": "main", "commit": "c0ffee"})),
        (
            Kind::GitRepository,
            "elsewhere",
            json!({"url": "https://github.com/org/app2", "ref": {"branch": "main"}}),
        ),
    ])
}

// Incidents 24 and 25.
#[test]
fn a_push_finds_what_tracks_the_ref() {
    let inventory = objects_that_track();
    let check_push =
        |name, expect: &[&str]| check(&inventory, push(&["git@github.com:org/app.git"], name), expect);
    check_push(GitRef::branch("main"), &["main", "name"]);
    check_push(GitRef::branch("master"), &["default"]);
    check_push(GitRef::branch("feature/x"), &["slashed"]);
    check_push(GitRef::branch("Main"), &[]);
    check_push(GitRef::tag("v1.2.3"), &["broken-range", "range", "tag"]);
    check_push(GitRef::tag("stable"), &["broken-range", "tag-and-range"]);
    check_push(GitRef::tag("v2.5.0"), &["broken-range", "tag-and-range"]);
    check_push(GitRef::tag("main"), &["broken-range"]);
    let pull_request = GitRef::from_full_name("refs/pull/420/head").expect("a full name");
    check_push(pull_request, &["pull"]);
    let other = GitRef::from_full_name("refs/pull/421/head").expect("a full name");
    check_push(other, &[]);
    let merge = json!({"url": URL, "ref": {"name": "refs/pull/420/merge"}});
    let inventory = self::inventory(&[(Kind::GitRepository, "merge", merge)]);
    let push_to = |name| push(&[URL], name);
    check(&inventory, push_to(GitRef::branch("main")), &["merge"]);
    let trial = GitRef::from_full_name("refs/pull/420/merge").expect("a full name");
    check(&inventory, push_to(trial), &["merge"]);
    check(&inventory, push_to(GitRef::from_full_name("refs/pull/421/head").expect("a full name")), &[]);
}

#[test]
fn a_deletion_concerns_ranges_only() {
    let inventory = objects_that_track();
    let deleted = |name| change(&[URL], RefChange { deleted: true, ..RefChange::new(name) });
    check(&inventory, deleted(GitRef::branch("main")), &[]);
    check(&inventory, deleted(GitRef::tag("v1.2.3")), &["broken-range", "range"]);
}

#[test]
fn a_pinned_commit_is_queried_when_it_comes() {
    let inventory = objects_that_track();
    let brings = |commit: &str| {
        let name = GitRef::branch("main");
        change(&[URL], RefChange { commits: ["beef", commit].into_iter().collect(), ..RefChange::new(name) })
    };
    check(&inventory, brings("c0ffee"), &["commit", "main", "name"]);
    check(&inventory, brings("c0ffe"), &["main", "name"]);
}

#[test]
fn an_unknown_change_concerns_all_but_pinned_commits() {
    let event = Event::Git(GitEvent {
        repository: vec![RepositoryUrl::parse(URL).expect("a URL")],
        ssh_url: None,
        changes: GitChanges::Unknown,
    });
    let matched = find(&objects_that_track(), &[event], &Selection::default());
    assert_eq!(matched.targets.len(), 9, "{matched:?}");
    assert_eq!(matched.missed_for(|why| why == MissReason::TracksSomethingElse), 1);
}

#[test]
fn any_url_of_the_payload_is_good_and_ports_count_within_a_scheme() {
    let spec = json!({"url": "ssh://git@git.example.com:7999/prj/app.git", "ref": {"branch": "main"}});
    let inventory = inventory(&[(Kind::GitRepository, "app", spec)]);
    let main = || GitRef::branch("main");
    check(
        &inventory,
        push(&["https://git.example.com/scm/prj/app", "ssh://git@git.example.com:7999/prj/app"], main()),
        &["app"],
    );
    check(&inventory, push(&["https://git.example.com/scm/prj/app"], main()), &[]);
    check(&inventory, push(&["ssh://git@git.example.com:22/prj/app"], main()), &[]);
}

#[test]
fn suspended_objects_are_named_and_left_alone() {
    let spec = json!({"url": URL, "ref": {"branch": "main"}, "suspend": true});
    let inventory = inventory(&[(Kind::GitRepository, "app", spec)]);
    let events = [push(&[URL], GitRef::branch("main"))];
    let matched = find(&inventory, &events, &Selection::default());
    assert!(matched.targets.is_empty());
    assert_eq!(matched.skipped.len(), 1);
    let selection = Selection::default();
    let of = SelectionOf { endpoint: "github", selection: &selection };
    assert_eq!(
        matched.why_nothing(&events, of),
        "every object that tracks this change is suspended: GitRepository/default/app"
    );
}

// Incident 33.
fn listing(resources: Vec<ResourceSelector>) -> Selection {
    Selection { resources, ..Selection::default() }
}

fn resource(kind: Kind, name: Option<&str>) -> ResourceSelector {
    ResourceSelector {
        kind,
        name: name.map(str::to_owned),
        namespace: None,
        labels: BTreeMap::new(),
        filter: None,
    }
}

#[test]
fn a_list_narrows_what_a_payload_is_about() {
    let event = || push(&[URL], GitRef::branch("main"));
    let all = names(&find(&objects_that_track(), &[event()], &Selection::default()));
    assert!(all.len() > 1);
    let one = resource(Kind::GitRepository, Some(&all[0]));
    assert_eq!(names(&find(&objects_that_track(), &[event()], &listing(vec![one]))), all[..1]);
    let none = resource(Kind::Bucket, None);
    assert!(names(&find(&objects_that_track(), &[event()], &listing(vec![none]))).is_empty());
}

#[test]
fn anything_and_all_mean_what_is_listed_and_nothing_without_a_list() {
    let mut inventory = inventory(&[
        (Kind::GitRepository, "one/a", json!({"url": URL})),
        (Kind::GitRepository, "two/b", json!({"url": "https://github.com/org/other", "suspend": true})),
        (Kind::Bucket, "one/c", json!({"bucketName": "c", "endpoint": "s3.example.com"})),
        (Kind::HelmRepository, "one/d", json!({"url": "oci://ghcr.io/org", "type": "oci"})),
    ]);
    inventory.set_coverage(Kind::GitRepository, KindCoverage::complete());
    let anything = || vec![Event::Anything { what: "a delivery".to_owned() }];
    let everything = listing(vec![resource(Kind::GitRepository, None), resource(Kind::HelmRepository, None)]);
    let matched = find(&inventory, &anything(), &everything);
    assert_eq!(names(&matched), ["a"], "an OCI HelmRepository is never reconciled");
    assert_eq!(matched.skipped.len(), 1, "the suspended one");
    assert!(names(&find(&inventory, &anything(), &Selection::default())).is_empty());
    assert!(!super::can_tell(&inventory, &anything(), &everything), "HelmRepositories are not known");
    let known = listing(vec![resource(Kind::GitRepository, None)]);
    assert!(super::can_tell(&inventory, &anything(), &known));

    let elsewhere = [push(&["https://github.com/org/nobodys"], GitRef::branch("main"))];
    let buckets = || listing(vec![resource(Kind::Bucket, None)]);
    assert!(names(&find(&inventory, &elsewhere, &buckets())).is_empty());
    let all = Selection { matches_all: true, ..buckets() };
    assert_eq!(names(&find(&inventory, &elsewhere, &all)), ["c"]);
    let one = Selection { namespaces: vec!["two".to_owned()], ..all };
    assert!(names(&find(&inventory, &elsewhere, &one)).is_empty());
}

fn expected(matched: &MatchResult) -> Vec<(String, String)> {
    let expected = matched.expected.iter();
    expected.map(|expected| (expected.target.name.clone(), expected.revision.clone())).collect()
}

#[test]
fn each_object_expects_what_its_own_event_brings() {
    let pushed = |image: &str, digest: &str| {
        let reference = ImageReference::parse(&format!("{image}:v1")).expect("an image");
        Event::Image(ImageEvent {
            names: vec![reference.name],
            written: image.to_owned(),
            tags: vec!["v1".to_owned()],
            digest: Some(format!("sha256:{digest}")),
            media: Media::Unknown,
            deleted: false,
        })
    };
    let follower = |name, image: &str| {
        (Kind::OciRepository, name, json!({"url": format!("oci://{image}"), "ref": {"tag": "v1"}}))
    };
    let inventory = inventory(&[
        follower("one", "ghcr.io/org/one"),
        follower("two", "ghcr.io/org/two"),
        follower("three", "ghcr.io/org/three"),
    ]);
    let events =
        [pushed("ghcr.io/org/two", "22"), pushed("ghcr.io/org/one", "11"), pushed("ghcr.io/org/one", "12")];
    let pair = |name: &str, digest: &str| (name.to_owned(), digest.to_owned());
    let matched = find(&inventory, &events, &Selection::default());
    assert_eq!(expected(&matched), [pair("one", "12"), pair("two", "22")]);
    let all = Selection { matches_all: true, ..listing(vec![resource(Kind::OciRepository, None)]) };
    let matched = find(&inventory, &events, &all);
    assert_eq!(names(&matched), ["one", "three", "two"]);
    assert_eq!(
        expected(&matched),
        [pair("one", "12"), pair("two", "22")],
        "nothing is expected of the others"
    );
}

#[test]
fn namespaces_limit_where() {
    let spec = json!({"url": URL, "ref": {"branch": "main"}});
    let inventory =
        inventory(&[(Kind::GitRepository, "one/app", spec.clone()), (Kind::GitRepository, "two/app", spec)]);
    let selection = Selection { namespaces: vec!["two".to_owned()], ..Selection::default() };
    let matched = find(&inventory, &[push(&[URL], GitRef::branch("main"))], &selection);
    let targets: Vec<String> = matched.targets.iter().map(ToString::to_string).collect();
    assert_eq!(targets, ["GitRepository/two/app"]);
}

fn image_objects_that_track() -> Inventory {
    let oci = |name, reference: Value| {
        (Kind::OciRepository, name, json!({"url": "oci://ghcr.io/Org/app", "ref": reference}))
    };
    inventory(&[
        (Kind::ImageRepository, "scan", json!({"image": "ghcr.io/org/app"})),
        (Kind::ImageRepository, "scan-some", json!({"image": "ghcr.io/org/app", "exclusionList": ["^dev-"]})),
        (Kind::OciRepository, "oci-latest", json!({"url": "oci://ghcr.io/org/app"})),
        oci("oci-tag", json!({"tag": "1.2.3"})),
        oci("oci-range", json!({"semver": "^1.0"})),
        oci("oci-filtered", json!({"semver": "^1.0", "semverFilter": "-prod$"})),
        oci("oci-digest", json!({"digest": "sha256:ab"})),
        (Kind::HelmRepository, "charts", json!({"type": "oci", "url": "oci://ghcr.io/org"})),
        (Kind::HelmRepository, "other/charts", json!({"type": "oci", "url": "oci://ghcr.io/other"})),
        (
            Kind::HelmChart,
            "chart",
            json!({"chart": "app", "version": "1.x", "sourceRef": {"kind": "HelmRepository", "name": "charts"}}),
        ),
        (
            Kind::HelmChart,
            "chart-any",
            json!({"chart": "app", "sourceRef": {"kind": "HelmRepository", "name": "charts"}}),
        ),
        (
            Kind::HelmChart,
            "chart-other",
            json!({"chart": "app2", "sourceRef": {"kind": "HelmRepository", "name": "charts"}}),
        ),
        (
            Kind::HelmChart,
            "chart-of-git",
            json!({"chart": "./app", "sourceRef": {"kind": "GitRepository", "name": "charts"}}),
        ),
        (
            Kind::HelmChart,
            "other/chart-there",
            json!({"chart": "app", "sourceRef": {"kind": "HelmRepository", "name": "charts"}}),
        ),
    ])
}

#[test]
fn an_image_finds_who_follows_the_tag() {
    let inventory = image_objects_that_track();
    let check_image = |reference, expect: &[&str]| check(&inventory, Event::Image(image(reference)), expect);
    check_image(
        "ghcr.io/org/app:1.2.3",
        &["chart", "chart-any", "oci-range", "oci-tag", "scan", "scan-some"],
    );
    check_image("ghcr.io/org/app:latest", &["chart-any", "oci-latest", "scan", "scan-some"]);
    check_image("ghcr.io/org/app:dev-1", &["chart-any", "scan"]);
    check_image("ghcr.io/org/app:sha256-ab.sig", &["chart-any", "scan-some"]);
    check_image("ghcr.io/org/app:2.0.0", &["chart-any", "scan", "scan-some"]);
    check_image(
        "ghcr.io/org/app@sha256:ab",
        &[
            "chart",
            "chart-any",
            "oci-digest",
            "oci-filtered",
            "oci-latest",
            "oci-range",
            "oci-tag",
            "scan",
            "scan-some",
        ],
    );
    check_image("ghcr.io/org/app2:1.0.0", &["chart-other"]);
    check_image("ghcr.io/org/ap:1.0.0", &[]);
}

#[test]
fn media_types_narrow_the_kinds() {
    let inventory = image_objects_that_track();
    let chart = ImageEvent { media: Media::Chart, ..image("ghcr.io/org/app:1.2.3") };
    check(&inventory, Event::Image(chart), &["chart", "chart-any", "oci-range", "oci-tag"]);
    let container = ImageEvent { media: Media::Image, ..image("ghcr.io/org/app:1.2.3") };
    check(&inventory, Event::Image(container), &["oci-range", "oci-tag", "scan", "scan-some"]);
}

#[test]
fn a_deleted_tag_concerns_ranges_only() {
    let deleted = ImageEvent { deleted: true, ..image("ghcr.io/org/app:1.2.3") };
    check(&image_objects_that_track(), Event::Image(deleted), &["chart", "chart-any", "oci-range"]);
}

#[test]
fn charts_of_whole_registries_and_docker_hub_are_found() {
    let chart = |repository| json!({"chart": "team/app", "sourceRef": {"kind": "HelmRepository", "name": repository}});
    let inventory = inventory(&[
        (Kind::HelmRepository, "bare", json!({"type": "oci", "url": "oci://registry.example.com:5000"})),
        (Kind::HelmChart, "of-bare", chart("bare")),
        (Kind::HelmRepository, "hub", json!({"url": "oci://registry-1.docker.io/bitnamicharts/"})),
        (
            Kind::HelmChart,
            "of-hub",
            json!({"chart": "redis", "version": "*", "sourceRef": {"kind": "HelmRepository", "name": "hub"}}),
        ),
    ]);
    check(&inventory, Event::Image(image("registry.example.com:5000/team/app:1.0.0")), &["of-bare"]);
    check(&inventory, Event::Image(image("bitnamicharts/redis:18.1.0_build.1")), &["of-hub"]);
}

#[test]
fn helm_repositories_are_found_by_the_end_of_their_url() {
    let inventory = inventory(&[
        (Kind::HelmRepository, "hosted", json!({"url": "https://nexus.example.com/repository/Helm-Hosted/"})),
        (Kind::HelmRepository, "other", json!({"url": "https://nexus.example.com/repository/helm-other"})),
        (Kind::HelmRepository, "pages", json!({"url": "https://Org.github.io/charts"})),
    ]);
    let tail = ["repository", "helm-hosted"].map(str::to_owned).to_vec();
    check(&inventory, Event::Chart(ChartEvent { url_tail: tail }), &["hosted"]);
    check(&inventory, push(&["https://github.com/org/charts"], GitRef::branch("gh-pages")), &["pages"]);
    check(&inventory, push(&["https://github.com/org/charts"], GitRef::branch("main")), &[]);
    check(&inventory, push(&["https://github.com/other/charts"], GitRef::branch("gh-pages")), &[]);
}

#[test]
fn buckets_are_found_by_service_endpoint_and_prefix() {
    let inventory = inventory(&[
        (Kind::Bucket, "aws", json!({"bucketName": "b", "endpoint": "s3.amazonaws.com", "provider": "aws"})),
        (
            Kind::Bucket,
            "aws-elsewhere",
            json!({"bucketName": "c", "endpoint": "minio.example.com:9000", "provider": "aws"}),
        ),
        (
            Kind::Bucket,
            "gcs",
            json!({"bucketName": "b", "endpoint": "storage.googleapis.com", "provider": "gcp"}),
        ),
        (
            Kind::Bucket,
            "minio",
            json!({"bucketName": "b", "endpoint": "minio.example.com:9000", "prefix": "prod/"}),
        ),
    ]);
    let event = |service, endpoint: Option<&str>, key: &str| {
        let keys = vec![key.to_owned()];
        Event::Bucket(BucketEvent {
            name: "b".to_owned(),
            service,
            endpoint: endpoint.map(str::to_owned),
            keys,
        })
    };
    check(&inventory, event(BucketService::Aws, None, "x"), &["aws"]);
    check(&inventory, event(BucketService::Gcp, None, "x"), &["gcs"]);
    check(&inventory, event(BucketService::S3Compatible, None, "prod/x"), &["minio"]);
    check(&inventory, event(BucketService::S3Compatible, Some("other:9000"), "prod/x"), &[]);
    let elsewhere = |endpoint: Option<&str>| {
        let Event::Bucket(event) = event(BucketService::S3Compatible, endpoint, "x") else { unreachable!() };
        Event::Bucket(BucketEvent { name: "c".to_owned(), ..event })
    };
    check(&inventory, elsewhere(None), &["aws-elsewhere"]);
    check(&inventory, elsewhere(Some("minio.example.com:9000")), &["aws-elsewhere"]);
    check(&inventory, elsewhere(Some("other:9000")), &[]);
    check(&inventory, event(BucketService::S3Compatible, None, "test/x"), &[]);
}

#[test]
fn the_inventory_follows_changes_in_place() {
    let mut inventory = objects_that_track();
    let main = || push(&[URL], GitRef::branch("main"));
    inventory.put(object(Kind::GitRepository, "main", json!({"url": URL, "ref": {"branch": "next"}})));
    check(&inventory, main(), &["name"]);
    let gone = Target { kind: Kind::GitRepository, namespace: "default".to_owned(), name: "name".to_owned() };
    inventory.remove(&gone);
    inventory.remove(&gone);
    assert!(!inventory.contains(&gone));
    check(&inventory, main(), &[]);
    inventory.put(object(Kind::GitRepository, "new", json!({"url": URL, "ref": {"branch": "main"}})));
    check(&inventory, main(), &["new"]);
    inventory.retain(Kind::GitRepository, |_, target| target.name == "new");
    check(&inventory, main(), &["new"]);
    assert_eq!(inventory.count(Kind::GitRepository), 1);
}

#[test]
fn objects_without_a_readable_url_are_refused() {
    let target = Target { kind: Kind::GitRepository, namespace: "default".to_owned(), name: "x".to_owned() };
    let spec = serde_json::value::to_raw_value(&json!({"url": "nonsense"})).expect("JSON");
    let spec = Spec::read(Kind::GitRepository, Some(&spec)).expect("a spec");
    assert!(Object::new(target, &spec).is_err());
}

// Incident 32: one object whose filter fails stops no other.
#[test]
fn filters_decide_object_by_object() {
    let mut inventory = Inventory::default();
    for (name, team) in [("a", Some("blue")), ("b", Some("red")), ("c", None)] {
        let spec = json!({"url": "https://github.com/org/app", "ref": {"branch": "main"}});
        let mut object = object(Kind::GitRepository, name, spec.clone());
        let mut metadata = FilterMetadata::default();
        metadata.annotations.extend(team.map(|team| ("team".to_owned(), team.to_owned())));
        let spec = serde_json::value::to_raw_value(&spec).expect("JSON");
        object.details = Some(Box::new(FilterFields::new("", metadata, Some(&spec), Some("main@sha1:11"))));
        inventory.put(object);
    }
    let find_with = |filter: &str| {
        let filter = Expression::condition(filter, filter_input::RESOURCE_VARIABLES).expect("a condition");
        let resource = ResourceSelector { filter: Some(filter), ..resource(Kind::GitRepository, None) };
        let input =
            FilterInput::named("push".to_owned()).with_request(Ok(json!({"team": "blue"}).to_string()));
        let selection = Selection { resources: vec![resource], ..Selection::default() };
        super::find(
            &inventory,
            &[push(&["https://github.com/org/app"], GitRef::branch("main"))],
            &selection,
            &input,
        )
    };
    let matched = find_with("res.metadata.annotations.team == req.team");
    assert_eq!(names(&matched), ["a"]);
    assert_eq!(matched.missed_for(|why| why == MissReason::FilteredOut), 2);
    assert_eq!(matched.failures, 1, "c has no annotations");
    assert_eq!(names(&find_with("res.metadata.?annotations.?team.orValue('') != req.team")), ["b", "c"]);
    assert_eq!(
        names(&find_with(
            "res.spec.ref.branch == 'main' && res.status.artifact.revision.endsWith(':11') && event.refs[0].branch == 'main' && res.metadata.name > 'a'"
        )),
        ["b", "c"]
    );
    let none = find_with("res.kind == 'Bucket'");
    assert_eq!(
        none.why_nothing(&[], SelectionOf { endpoint: "github", selection: &Selection::default() }),
        "no object passed the filters of `resources` (3 objects reference this repository: GitRepository/default/a, \
         GitRepository/default/b, GitRepository/default/c)"
    );
}

// A filter that nothing contradicts would let through what it was to keep out.
#[test]
fn a_filter_lets_no_object_through_of_which_it_knows_nothing() {
    let mut inventory = Inventory::default();
    inventory.set_coverage(Kind::GitRepository, KindCoverage::complete());
    let spec = json!({"url": "https://github.com/org/app", "ref": {"branch": "main"}});
    inventory.put(object(Kind::GitRepository, "a", spec));
    let without = KindCoverage { has_filter_fields: false, ..KindCoverage::complete() };
    inventory.set_coverage(Kind::GitRepository, without);
    let events = [push(&["https://github.com/org/app"], GitRef::branch("main"))];
    let input = FilterInput::named("push".to_owned()).with_request(Ok("{}".to_owned()));
    let selection = |filter: &str| {
        let filter = Expression::condition(filter, filter_input::RESOURCE_VARIABLES).expect("a condition");
        let resource = ResourceSelector { filter: Some(filter), ..resource(Kind::GitRepository, None) };
        Selection { resources: vec![resource], ..Selection::default() }
    };
    for filter in
        ["!has(res.metadata.annotations)", "res.metadata.?annotations.?deploy.orValue('') != 'manual'"]
    {
        let selection = selection(filter);
        assert!(!super::can_tell(&inventory, &events, &selection), "{filter}");
        let matched = super::find(&inventory, &events, &selection, &input);
        assert_eq!(names(&matched), [""; 0], "{filter}");
    }
    let of_the_event = selection("event.refs[0].branch == 'main'");
    assert!(super::can_tell(&inventory, &events, &of_the_event));
    assert!(super::can_tell(&inventory, &events, &Selection::default()), "others do not wait");
    assert_eq!(names(&super::find(&inventory, &events, &of_the_event, &input)), ["a"]);
}

#[test]
fn a_chart_version_that_is_a_tag_is_that_tag_before_any_range() {
    let chart = |name, version: &str| {
        let spec = json!({"chart": "app", "version": version, "sourceRef": {"kind": "HelmRepository", "name": "charts"}});
        (Kind::HelmChart, name, spec)
    };
    let inventory = inventory(&[
        (Kind::HelmRepository, "charts", json!({"type": "oci", "url": "oci://ghcr.io/org"})),
        chart("short", "1.2"),
        chart("with-build", "1.2.0+7"),
        chart("word", "stable"),
    ]);
    let pushed = |tag: &str| Event::Image(image(&format!("ghcr.io/org/app:{tag}")));
    check(&inventory, pushed("1.2"), &["short", "word"]);
    check(&inventory, pushed("1.2.0_7"), &["short", "with-build", "word"]);
    check(&inventory, pushed("1.3.0"), &["word"]);
    check(&inventory, pushed("stable"), &["word"]);
}

/// A digest of one repeated digit.
fn digest(digit: char) -> String {
    digit.to_string().repeat(64)
}

// cosign pushes the signature as a tag of its own, after the image.
#[test]
fn a_signature_concerns_those_who_verify_what_it_signs() {
    let oci = |name, reference: Value, verify: Value| {
        (
            Kind::OciRepository,
            name,
            json!({"url": "oci://ghcr.io/org/app", "ref": reference, "verify": verify}),
        )
    };
    let chart = |name, verify: Value| {
        let source = json!({"kind": "HelmRepository", "name": "charts"});
        (Kind::HelmChart, name, json!({"chart": "app", "sourceRef": source, "verify": verify}))
    };
    let cosign = || json!({"provider": "cosign"});
    let inventory = inventory(&[
        (Kind::HelmRepository, "charts", json!({"type": "oci", "url": "oci://ghcr.io/org"})),
        oci("unverified", json!({"tag": "v1"}), Value::Null),
        oci("by-tag", json!({"tag": "v1"}), cosign()),
        oci("by-range", json!({"semver": "1.x"}), cosign()),
        oci("by-digest", json!({"digest": format!("sha256:{}", digest('a'))}), cosign()),
        chart("chart", cosign()),
        chart("chart-unverified", Value::Null),
    ]);
    let signature = |of: char| {
        let mut event = image(&format!("ghcr.io/org/app:sha256-{}.sig", digest(of)));
        // As cosign's manifests are read: they look like images.
        event.media = Media::Image;
        Event::Image(event)
    };
    check(&inventory, signature('a'), &["by-digest", "by-range", "by-tag", "chart"]);
    check(&inventory, signature('b'), &["by-range", "by-tag", "chart"]);

    // Once a delivery has named the digest of the tag, signatures of other digests concern it no more.
    let mut pushed = image("ghcr.io/org/app:v1");
    pushed.digest = Some(format!("sha256:{}", digest('b')));
    let matched = find(&inventory, &[Event::Image(pushed)], &Selection::default());
    super::remember_digests(&inventory, &[], &matched);
    check(&inventory, signature('a'), &["by-digest", "by-range", "chart"]);
    check(&inventory, signature('b'), &["by-range", "by-tag", "chart"]);
    // A delivery that comes late takes nothing away.
    let mut late = image("ghcr.io/org/app:v1");
    late.digest = Some(format!("sha256:{}", digest('c')));
    let matched = find(&inventory, &[Event::Image(late)], &Selection::default());
    super::remember_digests(&inventory, &[], &matched);
    check(&inventory, signature('b'), &["by-range", "by-tag", "chart"]);
    let fallback = Event::Image(image(&format!("ghcr.io/org/app:sha256-{}", digest('b'))));
    check(&inventory, fallback, &["by-range", "by-tag", "chart"]);
    // A push that does not name the digest makes it unknown.
    let nameless = [Event::Image(image("ghcr.io/org/app:v1"))];
    let matched = find(&inventory, &nameless, &Selection::default());
    super::remember_digests(&inventory, &nameless, &matched);
    check(&inventory, signature('d'), &["by-range", "by-tag", "chart"]);
    let other = Event::Image(image("ghcr.io/org/app:sha256-short.sig"));
    check(&inventory, other, &["chart", "chart-unverified"]);
}

#[test]
fn what_includes_a_target_is_found_in_chains_and_circles() {
    let git = |name, included: &[&str]| {
        let include: Vec<Value> = included.iter().map(|name| json!({"repository": {"name": name}})).collect();
        let url = format!("https://github.com/org/{}", name);
        (Kind::GitRepository, name, json!({"url": url, "ref": {"branch": "main"}, "include": include}))
    };
    let (namespaced, suspended) = ("other/outside", "suspended");
    let mut inventory = inventory(&[
        git("base", &["last"]),
        git("app", &["base"]),
        git("last", &["app", "base"]),
        git(namespaced, &["base"]),
    ]);
    let mut stopped = object(Kind::GitRepository, suspended, git(suspended, &["base"]).2);
    stopped.suspended = true;
    inventory.put(stopped);
    let push_base = || push(&["https://github.com/org/base"], GitRef::branch("main"));
    let pairs = |selection: &Selection| {
        let matched = find(&inventory, &[push_base()], selection);
        assert_eq!(names(&matched), ["base"]);
        let mut pairs: Vec<String> = matched
            .inclusions
            .iter()
            .map(|inclusion| format!("{}<{}", inclusion.included.name, inclusion.includer.name))
            .collect();
        pairs.sort();
        pairs
    };
    // What closes a circle is left out: `last<base`.
    assert_eq!(pairs(&Selection::default()), ["app<last", "base<app", "base<last"]);
    let only = |name: &str| ResourceSelector {
        kind: Kind::GitRepository,
        name: Some(name.to_owned()),
        namespace: None,
        labels: BTreeMap::new(),
        filter: None,
    };
    let narrowed = Selection { resources: vec![only("base"), only("last")], ..Selection::default() };
    assert_eq!(pairs(&narrowed), ["base<last"], "an endpoint reaches nothing else through inclusions");
}

mod explained {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::{CandidateVerdict, explain};
    use super::*;

    fn git_object(at: usize, (namespace, repository, branch, suspend): (u8, u8, u8, bool)) -> Object {
        let url = ["https://github.com/org/a", "https://github.com/org/b", "https://git.example.com/org/a"];
        let spec = json!({
            "url": url[usize::from(repository % 3)],
            "ref": {"branch": if branch % 2 == 0 { "main" } else { "dev" }},
            "suspend": suspend,
        });
        object(Kind::GitRepository, &format!("ns-{}/object-{at}", namespace % 3), spec)
    }

    fn selection(namespaces: &[u8], names: &[u8], has_consent: bool) -> Selection {
        let namespaces: Vec<String> = namespaces.iter().map(|at| format!("ns-{}", at % 3)).collect();
        let filter =
            Expression::condition("res.metadata.name != 'object-1'", filter_input::RESOURCE_VARIABLES);
        let resources = names.iter().map(|at| ResourceSelector {
            filter: (at % 2 == 0).then(|| filter.clone().expect("a condition")),
            ..resource(Kind::GitRepository, (at % 3 == 0).then_some("object-2"))
        });
        let selection = Selection { namespaces, resources: resources.collect(), ..Selection::default() };
        match has_consent {
            true => selection.clone().with_consent("github", selection.namespaces),
            false => selection,
        }
    }

    proptest! {
        #[test]
        fn what_is_said_to_track_is_what_is_requested(
            objects in vec((any::<u8>(), any::<u8>(), any::<u8>(), any::<bool>()), 0..12),
            namespaces in vec(any::<u8>(), 0..3),
            resources in vec(any::<u8>(), 0..3),
            has_consent: bool,
            matches_all: bool,
            branch in "main|dev|topic",
        ) {
            let mut inventory = Inventory::default();
            for (at, fields) in objects.into_iter().enumerate() {
                let mut object = git_object(at, fields);
                object.details = Some(Box::new(FilterFields::new("", FilterMetadata::default(), None, None)));
                inventory.put(object);
            }
            let selection = Selection { matches_all, ..selection(&namespaces, &resources, has_consent) };
            let events = [push(&["https://github.com/org/a"], GitRef::branch(&branch))];
            let input = FilterInput::named("push".to_owned());
            let requested = super::super::find(&inventory, &events, &selection, &input);
            let inventory = parking_lot::RwLock::new(inventory);
            let explained = explain(&inventory, &events, SelectionOf { endpoint: "github", selection: &selection }, &input);
            let mut said: Vec<&str> = explained
                .candidates
                .iter()
                .filter(|candidate| candidate.verdict == CandidateVerdict::Tracks)
                .map(|candidate| &*candidate.object)
                .collect();
            said.sort_unstable();
            let mut targets: Vec<String> = requested.targets.iter().map(ToString::to_string).collect();
            targets.sort_unstable();
            prop_assert_eq!(said, targets);
            // Nobody is named twice.
            let mut names: Vec<&String> = explained.candidates.iter().map(|candidate| &candidate.object).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            prop_assert_eq!(names.len(), count);
        }
    }
}
