//! Object stores and web servers: real ones, as processes on this machine, and what can go wrong between them and the
//! fetcher.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod bucket;
mod faults;
mod finding;
mod https;
mod proxy;
mod sas;
mod settings;
mod web;

use faults::{ROWS, Site};
use libtest_mimic::{Arguments, Trial};
use modelservice_test_stores::{bucket::Kind, place::Place, processes::Servers};
use std::{future::Future, process::ExitCode, sync::Arc};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
    }
    let (servers, runtime) = match (Servers::start(&Place::loopback()), Runtime::new()) {
        (Ok(servers), Ok(runtime)) => (Arc::new(servers), Arc::new(runtime)),
        (Err(error), _) => {
            eprintln!("the stores did not start: {error}");
            return ExitCode::FAILURE;
        }
        (_, Err(error)) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let world = World {
        servers: Arc::clone(&servers),
        runtime,
    };
    let conclusion = libtest_mimic::run(&arguments, trials(Some(world)));
    drop(servers);
    conclusion.exit_code()
}

/// What the tests share.
#[derive(Clone)]
struct World {
    servers: Arc<Servers>,
    runtime: Arc<Runtime>,
}

/// Collects tests; without a world only their names.
struct Trials {
    world: Option<World>,
    all: Vec<Trial>,
}

impl Trials {
    fn add<F: Future<Output = ()>>(
        &mut self,
        name: String,
        test: impl FnOnce(Arc<Servers>) -> F + Send + 'static,
    ) {
        let world = self.world.clone();
        self.all.push(Trial::test(name, move || {
            let world = world.ok_or("no stores")?;
            // The test runner catches panics.
            world.runtime.block_on(test(world.servers));
            Ok(())
        }));
    }
}

macro_rules! each {
    ($trials:expr, $kinds:expr, $room:ident: $($test:ident),+ $(,)?) => {$(
        for kind in $kinds {
            let name = format!("{}::{}", kind.scheme(), stringify!($test));
            $trials.add(name, async move |servers| $room::$test(&servers, kind).await);
        }
    )+};
}

macro_rules! web {
    ($trials:expr, $($test:ident),+ $(,)?) => {$(
        $trials.add(concat!("https::", stringify!($test)).to_owned(), async |_| https::$test().await);
    )+};
}

fn trials(world: Option<World>) -> Vec<Trial> {
    let mut trials = Trials {
        world,
        all: Vec::new(),
    };
    each!(trials, Kind::ALL, finding:
        an_object_is_found_and_read_whole_and_in_parts,
        a_folder_is_exactly_what_is_below_it,
        nothing_is_an_error_that_names_what_is_similar,
        an_overwritten_object_is_not_read,
        a_changed_folder_is_not_read,
        a_version_of_another_kind_is_a_wrong_configuration,
        a_folder_of_many_objects_is_listed_to_its_end,
        a_marker_of_a_folder_is_no_file,
        a_public_object_is_read_without_credentials,
    );
    // versitygw keeps objects in a file system, where a file and a folder of one name exclude each other.
    each!(trials, [Kind::Gcs, Kind::Azure], finding: an_object_comes_before_a_folder_of_its_name);
    each!(trials, [Kind::S3, Kind::Gcs], finding: an_old_version_is_read_where_the_bucket_keeps_it);
    // fake-gcs-server answers with status 500.
    each!(trials, [Kind::S3, Kind::Azure], finding: a_bucket_that_does_not_exist_is_an_error);
    // fake-gcs-server asks nobody for credentials.
    each!(trials, [Kind::S3, Kind::Azure], finding: who_is_denied_learns_why);
    each!(trials, [Kind::S3, Kind::Azure], settings: a_secret_is_not_sent_to_a_server_that_it_does_not_list);
    for kind in Kind::ALL {
        let name = format!("{}::an_endpoint_that_is_no_store_is_not_reached", kind.scheme());
        trials.add(name, async move |_| {
            settings::an_endpoint_that_is_no_store_is_not_reached(kind).await
        });
    }
    trials.add(
        "credentials_that_cannot_be_used_say_what_to_change".to_owned(),
        async |_| {
            settings::credentials_that_cannot_be_used_say_what_to_change().await;
        },
    );
    trials.add(
        "the_pods_identity_is_for_its_vendor_only".to_owned(),
        async |_| {
            settings::the_pods_identity_is_for_its_vendor_only().await;
        },
    );
    let name = "az::a_shared_access_signature_is_used_and_not_passed_on";
    trials.add(name.to_owned(), async |servers| {
        sas::a_shared_access_signature_is_used_and_not_passed_on(&servers).await;
    });
    web!(
        trials,
        a_file_is_found_by_its_etag_and_read_in_parts,
        an_overwritten_file_is_not_read,
        without_a_strong_etag_the_digest_is_the_version,
        a_server_without_ranges_sends_all_of_it,
        an_answer_that_is_no_file_is_refused,
        an_empty_file_is_refused,
        a_file_that_is_not_there_is_an_error,
        a_private_authority_is_trusted_only_if_the_secret_has_it,
        the_secrets_headers_are_sent_to_the_servers_that_it_lists,
        a_file_of_unknown_length_is_read_to_its_end,
        a_part_of_a_file_of_unknown_length_does_not_say_its_length,
        a_signed_url_is_used_and_never_shown,
        a_redirect_to_less_than_tls_is_refused,
    );
    for site in Site::ALL {
        for row in ROWS {
            let name = format!("{}::{}", site.name(), row.what);
            trials.add(name, async move |servers| {
                faults::a_fault_is_reported_and_overcome(&servers, site, row).await
            });
        }
        let name = |test: &str| format!("{}::{test}", site.name());
        trials.add(
            name("a failing store does not look like an empty one"),
            async move |servers| {
                faults::a_failing_store_does_not_look_like_an_empty_one(&servers, site).await;
            },
        );
        trials.add(
            name("a redirect to another host carries no credentials"),
            async move |servers| {
                faults::a_redirect_to_another_host_carries_no_credentials(&servers, site).await;
            },
        );
    }
    for site in [Site::Store(Kind::S3), Site::Web] {
        let name = format!(
            "{}::credentials that expire in the middle are read again",
            site.name()
        );
        trials.add(name, async move |servers| {
            faults::credentials_that_expire_in_the_middle_are_read_again(&servers, site).await;
        });
    }
    trials.add("the docs have the table".to_owned(), async |_| {
        faults::the_docs_have_the_table()
    });
    trials.all
}
