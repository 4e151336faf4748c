#![allow(clippy::unwrap_used)]
use super::*;
use crate::{
    fixtures::{observed, runtime},
    validate::validate,
};
use serde_json::{Value, json};

/// The plan as one document.
fn document(plan: &Plan) -> Value {
    let revisions: Vec<Value> = plan
        .revisions
        .iter()
        .map(|planned| {
            let mut deployment = serde_json::to_value(&planned.deployment).unwrap();
            // The frozen template repeats the template.
            deployment["metadata"]["annotations"]["serving.modelservice.dev/pod-template"] =
                "(see below)".into();
            json!({"scale": format!("{:?}", planned.scale), "deployment": deployment})
        })
        .collect();
    json!({
        "revisions": revisions,
        "endpoint": plan.endpoint,
        "autoscaler": plan.autoscaler,
        "disruptionBudget": plan.disruption_budget,
    })
}

/// A change here changes users' pods at their next revision.
#[test]
fn the_whole_plan_of_a_plain_service() {
    insta::assert_yaml_snapshot!(document(&observed(json!({})).planned()));
}

#[test]
fn the_whole_plan_of_a_rich_service_on_a_device() {
    let mut observed = observed(json!({
        "model": {"image": "models.example/net@sha256:bb", "digest": "sha256:cc"},
        "accelerators": ["tpu"],
        "autoscaling": {"minReplicas": 2, "maxReplicas": 9, "target": {"cpuUtilization": 60},
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 10}}},
        "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "3Gi"}},
        "server": {"modelName": "net", "queueLength": 7, "maxBodyBytes": 4096, "maxBatchSize": 4,
            "connections": {"maxAgeSeconds": 60}, "auth": {"tokenSecretName": "known"},
            "accessLog": {"sampleRatio": 0.1}, "tracing": {"endpoint": "http://collector:4317"},
            "cache": {"volumeClaim": {"name": "graphs"}}},
        "rollout": {"startupDeadlineSeconds": 33, "progressDeadlineSeconds": 44},
        "pod": {"labels": {"team": "vision"}, "nodeSelector": {"zone": "z1"}, "fsGroup": 7,
            "env": [{"name": "A", "value": "b"}], "tolerations": [{"key": "mine"}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]},
    }));
    let class = json!({"apiVersion": "serving.modelservice.dev/v1alpha1", "kind": "AcceleratorClass",
        "metadata": {"name": "tpu"},
        "spec": {"resource": {"name": "example.com/tpu", "count": 2}, "nodeSelector": {"tpu": "yes"},
            "tolerations": [{"key": "tpu"}], "runtimeClassName": "tpu-runtime",
            "runtime": {"image": "runtime.example/tpu:1", "executionProvider": "TpuExecutionProvider", "options": {"cores": "2"}}}});
    observed
        .classes
        .insert("tpu".into(), Arc::new(serde_json::from_value(class).unwrap()));
    let plan = observed.planned();
    let again = observed.running(&plan, 2, 2).planned();
    assert_eq!(
        again.revisions[0].deployment.spec.template,
        plan.revisions[0].deployment.spec.template
    );
    insta::assert_yaml_snapshot!(document(&plan));
}

/// An operator upgrade or an edited class must not restart any pod.
#[test]
fn a_template_that_was_made_is_never_rendered_again() {
    let first = observed(json!({})).planned();
    let observed = observed(json!({})).running(&first, 1, 1);
    let newer = DefaultRuntime {
        image: "runtime.example/server:2".into(),
        version: "10.0.0".into(),
    };
    let service = validate(&observed).unwrap();
    let again = plan(&service, &observed, &newer);
    assert_eq!(again.revisions[0].deployment, first.revisions[0].deployment);
    assert!(
        again
            .runtime_update
            .unwrap()
            .contains("set spec.adoptRuntime to \"10.0.0\"")
    );
    assert_eq!(plan(&service, &observed, &runtime()).runtime_update, None);
}

/// A default that is newer than the revision takes effect with the next revision, and restarts nothing until then.
#[test]
fn a_template_of_an_operator_without_todays_defaults_stays_as_it_is() {
    let mut first = observed(json!({})).planned();
    let deployment = &mut first.revisions[0].deployment;
    let pod = deployment.spec.template.spec.as_mut().unwrap();
    pod.security_context.as_mut().unwrap().run_as_user = None;
    pod.containers[0].resources.as_mut().unwrap().limits = None;
    let frozen = serde_json::to_string(&deployment.spec.template).unwrap();
    let annotations = deployment.metadata.annotations.as_mut().unwrap();
    annotations.insert(crate::crd::TEMPLATE_ANNOTATION.into(), frozen);
    let again = observed(json!({})).running(&first, 1, 1).planned();
    assert_eq!(again.revisions[0].deployment, first.revisions[0].deployment);
    assert!(again.runtime_update.unwrap().contains("the pod template made by"));
}

/// Someone who may edit Deployments must not be able to make the operator apply what they may not run themselves.
#[test]
fn a_template_that_somebody_else_wrote_is_never_applied() {
    type Change = fn(&mut Value);
    let table: [(&str, Change); 20] = [
        ("spec.hostNetwork", |pod| pod["spec"]["hostNetwork"] = true.into()),
        ("spec.hostPID", |pod| pod["spec"]["hostPID"] = true.into()),
        ("spec.initContainers[0]", |pod| {
            pod["spec"]["initContainers"] = json!([{"name": "first", "image": "x"}]);
        }),
        ("spec.containers[1].name", |pod| {
            let second = json!({"name": "second", "image": "x"});
            pod["spec"]["containers"].as_array_mut().unwrap().push(second);
        }),
        ("spec.volumes[2]", |pod| {
            let volume = json!({"name": "model", "hostPath": {"path": "/"}});
            pod["spec"]["volumes"].as_array_mut().unwrap().push(volume);
        }),
        ("spec.volumes[1]", |pod| {
            pod["spec"]["volumes"][1] = json!({"name": "cache", "hostPath": {"path": "/"}});
        }),
        ("spec.securityContext.runAsNonRoot", |pod| {
            pod["spec"]["securityContext"]["runAsNonRoot"] = false.into();
        }),
        ("spec.securityContext.runAsUser", |pod| {
            pod["spec"]["securityContext"]["runAsUser"] = 0.into();
        }),
        ("spec.securityContext.seccompProfile.type", |pod| {
            pod["spec"]["securityContext"]["seccompProfile"]["type"] = "Unconfined".into();
        }),
        ("spec.securityContext.seccompProfile.type", |pod| {
            pod["spec"]["securityContext"]
                .as_object_mut()
                .unwrap()
                .remove("seccompProfile");
        }),
        ("spec.automountServiceAccountToken", |pod| {
            pod["spec"]
                .as_object_mut()
                .unwrap()
                .remove("automountServiceAccountToken");
        }),
        ("spec.containers[0].securityContext.privileged", |pod| {
            pod["spec"]["containers"][0]["securityContext"]["privileged"] = true.into();
        }),
        ("spec.containers[0].securityContext.capabilities.add", |pod| {
            pod["spec"]["containers"][0]["securityContext"]["capabilities"]["add"] = json!(["SYS_ADMIN"]);
        }),
        ("spec.containers[0].command", |pod| {
            pod["spec"]["containers"][0]["command"] = json!(["/mnt/model/program"]);
        }),
        ("spec.containers[0].envFrom", |pod| {
            pod["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "x"}}]);
        }),
        ("spec.containers[0].env[LD_PRELOAD]", |pod| {
            let variable = json!({"name": "LD_PRELOAD", "value": "/mnt/model/x.so"});
            pod["spec"]["containers"][0]["env"]
                .as_array_mut()
                .unwrap()
                .push(variable);
        }),
        ("spec.containers[0].livenessProbe.exec", |pod| {
            pod["spec"]["containers"][0]["livenessProbe"] = json!({"exec": {"command": ["x"]}});
        }),
        ("spec.containers[0].securityContext.capabilities.drop", |pod| {
            pod["spec"]["containers"][0]["securityContext"]["capabilities"]["drop"] = json!([]);
        }),
        ("spec.containers[0].volumeMounts[2]", |pod| {
            let mount = json!({"name": "credentials", "mountPath": "/etc/modelservice/credentials", "readOnly": true});
            pod["spec"]["containers"][0]["volumeMounts"]
                .as_array_mut()
                .unwrap()
                .push(mount);
        }),
        ("metadata.annotations[cdi.k8s.io/all]", |pod| {
            pod["metadata"]["annotations"]["cdi.k8s.io/all"] = "example.com/tpu=all".into();
        }),
    ];
    never_applied(&json!({}), &table);
}

/// The same for what runs before the server, which sees credentials.
#[test]
fn an_init_container_that_somebody_else_wrote_is_never_applied() {
    type Change = fn(&mut Value);
    let table: [(&str, Change); 10] = [
        ("spec.initContainers[0]", |init| {
            init["command"] = json!(["/bin/sh"])
        }),
        ("spec.initContainers[0]", |init| init["command"] = json!([])),
        ("spec.initContainers[0]", |init| {
            init["args"] = json!(["fetch", "--more"])
        }),
        ("spec.initContainers[0]", |init| {
            let more = json!({"name": "LD_PRELOAD", "value": "/mnt/model/x.so"});
            init["env"].as_array_mut().unwrap().push(more);
        }),
        ("spec.initContainers[0]", |init| {
            init["env"][0] = json!({"name": "MODELSERVICE_FETCH", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}});
        }),
        ("spec.initContainers[0]", |init| {
            init["securityContext"]["privileged"] = true.into()
        }),
        (
            "spec.initContainers[0].securityContext.capabilities.drop",
            |init| {
                init["securityContext"]["capabilities"] = json!({});
            },
        ),
        ("spec.initContainers[0].command", |init| {
            init.as_object_mut().unwrap().remove("command");
        }),
        ("spec.initContainers[0]", |init| {
            init["restartPolicy"] = "Always".into()
        }),
        ("spec.initContainers[0]", |init| init["name"] = "first".into()),
    ];
    let spec = json!({"model": {"uri": format!("oci://r.example/net@sha256:{}", "a".repeat(64))},
        "fetch": {"credentials": {"secretName": "known"}}});
    for (field, change) in table {
        never_applied(
            &spec,
            &[(field, |pod: &mut Value| {
                change(&mut pod["spec"]["initContainers"][0])
            })],
        );
    }
}

/// Each change makes a template that the operator does not apply, and names the field.
fn never_applied(spec: &Value, table: &[(&str, impl Fn(&mut Value))]) {
    let first = observed(spec.clone()).planned();
    for (field, change) in table {
        let mut template = serde_json::to_value(&first.revisions[0].deployment.spec.template).unwrap();
        change(&mut template);
        let mut changed = first.clone();
        let deployment = &mut changed.revisions[0].deployment;
        deployment
            .metadata
            .annotations
            .as_mut()
            .unwrap()
            .insert(crate::crd::TEMPLATE_ANNOTATION.into(), template.to_string());
        let again = observed(spec.clone()).running(&changed, 1, 1).planned();
        let expected = &first.revisions[0].deployment;
        assert_eq!(
            again.revisions[0].deployment, *expected,
            "{field}: the live one is the copy"
        );

        let deployment = &mut changed.revisions[0].deployment;
        deployment.spec.template = serde_json::from_value(template).unwrap();
        let problem = validate(&observed(spec.clone()).running(&changed, 1, 1)).unwrap_err();
        let deployment = expected.metadata.name.clone().unwrap();
        let field = (*field).to_owned();
        assert_eq!(
            problem,
            crate::reason::Problem::TemplateChanged {
                deployment,
                field,
                recreated: ""
            }
        );
    }
}

/// A setting of the class that does not reach the pod would be worse than none.
#[test]
fn what_the_class_says_about_pods_arrives_in_the_template_and_wins_over_the_user() {
    let env = json!([{"name": "GPU_CACHE", "value": "user"}, {"name": "MINE", "value": "$(GPU_CACHE)"}]);
    let rule = |key: &str| json!([{"matchExpressions": [{"key": key, "operator": "Exists"}]}]);
    let required = |key: &str| json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": rule(key)}});
    let spec = json!({"accelerators": ["made-up-gpu"],
        "pod": {"env": env, "affinity": {"nodeAffinity": required("user")}}});
    let class = json!({"resource": {"name": "example.com/gpu"}, "nodeAffinity": required("class"),
        "env": [{"name": "GPU_CACHE", "value": "class"}, {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute"}],
        "runtime": {"image": "runtime.example/gpu:1", "imagePullPolicy": "Always"}});
    let observed = observed(spec).class("made-up-gpu", class);
    let plan = observed.planned();
    let template = &plan.revisions[0].deployment.spec.template;
    let pod = serde_json::to_value(template.spec.as_ref().unwrap()).unwrap();
    let container = &pod["containers"][0];
    assert_eq!(container["imagePullPolicy"], "Always");
    let env: Vec<(&str, &str)> = container["env"].as_array().unwrap()[1..]
        .iter()
        .map(|variable| {
            (
                variable["name"].as_str().unwrap(),
                variable["value"].as_str().unwrap(),
            )
        })
        .collect();
    let wanted = [
        ("GPU_CACHE", "class"),
        ("NVIDIA_DRIVER_CAPABILITIES", "compute"),
        ("MINE", "$(GPU_CACHE)"),
    ];
    assert_eq!(env, wanted);
    let terms = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let keys = ["user", "class"].map(|key| json!({"key": key, "operator": "Exists"}));
    assert_eq!(*terms, json!([{"matchExpressions": keys}]));
    let again = observed.running(&plan, 1, 1).planned();
    assert_eq!(
        again.revisions[0].deployment, plan.revisions[0].deployment,
        "the operator knows its own template"
    );
}

/// A spec may be older than the CRD's rules.
#[test]
fn what_the_crd_refuses_is_refused_by_the_operator_too() {
    let refused = |pod: Value| validate(&observed(json!({"pod": pod}))).unwrap_err().to_string();
    let message = refused(json!({"env": [{"name": "LD_PRELOAD", "value": "/mnt/model/x.so"}]}));
    assert!(message.contains("may not set LD_PRELOAD"), "{message}");
    let unconfined = json!({"container.apparmor.security.beta.kubernetes.io/server": "unconfined"});
    let message = refused(json!({"annotations": unconfined}));
    assert!(message.contains("container.apparmor"), "{message}");
}

/// Combining a user's request with our limit, or the reverse, can contradict itself: a request above a limit is
/// refused.
#[test]
fn ephemeral_storage_is_the_users_as_soon_as_they_name_it() {
    let named = |resources: Value| {
        let template = observed(json!({"resources": resources})).planned().revisions[0]
            .deployment
            .spec
            .template
            .clone();
        let pod = template.spec.unwrap();
        let resources = pod.containers[0].resources.clone().unwrap();
        let limit = resources
            .limits
            .as_ref()
            .and_then(|limits| limits.get("ephemeral-storage"));
        let cache = pod.volumes.unwrap().remove(1).empty_dir.unwrap();
        assert_eq!(cache.size_limit.as_ref(), limit);
        [resources.requests, resources.limits].map(|side| Some(side?.get("ephemeral-storage")?.0.clone()))
    };
    let some = |quantity: &str| Some(quantity.to_owned());
    assert_eq!(named(json!({})), [some("64Mi"), some("10Gi")]);
    let requested = json!({"requests": {"ephemeral-storage": "20Gi"}});
    assert_eq!(named(requested), [some("20Gi"), None]);
    let limited = json!({"limits": {"ephemeral-storage": "1Mi"}});
    assert_eq!(named(limited), [None, some("1Mi")]);
}

/// Without the group, a server cannot write to its claim; without the annotation, its node is never removed.
#[test]
fn a_cache_is_writable_and_holds_no_node() {
    let pod = |spec: Value| {
        let template = observed(spec).planned().revisions[0]
            .deployment
            .spec
            .template
            .clone();
        let group = template.spec.unwrap().security_context.unwrap().fs_group;
        let annotations = template.metadata.unwrap().annotations.unwrap_or_default();
        let local = annotations.get("cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes");
        (group, local.cloned())
    };
    let claimed = json!({"cache": {"volumeClaim": {"name": "graphs"}}});
    let annotation = json!({"cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": ""});
    assert_eq!(pod(json!({})), (None, Some("cache".into())));
    assert_eq!(
        pod(json!({"pod": {"annotations": annotation}})),
        (None, Some(String::new()))
    );
    assert_eq!(pod(json!({"server": claimed})), (Some(65532), None));
    assert_eq!(
        pod(json!({"server": claimed, "pod": {"fsGroup": 7}})),
        (Some(7), None)
    );
}

#[test]
fn the_same_observation_gives_the_same_plan() {
    let plan = || serde_json::to_string(&document(&observed(json!({"replicas": 3})).planned())).unwrap();
    assert_eq!(plan(), plan());
}

#[test]
fn a_budget_is_wanted_for_more_than_one_server() {
    let has = |spec: Value| observed(spec).planned().disruption_budget.is_some();
    assert!(!has(json!({})));
    assert!(has(json!({"replicas": 2})));
    assert!(!has(json!({"replicas": 2, "suspend": true})));
    assert!(has(json!({"autoscaling": {"minReplicas": 2, "maxReplicas": 3}})));
    assert!(
        !has(json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 3}})),
        "not before it has grown"
    );
}

/// Every source, and every way in which it gets to a server.
fn sources() -> Vec<(&'static str, Value)> {
    let pinned = format!("oci://r.example/net:v1@sha256:{}", "a".repeat(64));
    let key = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n";
    vec![
        (
            "mounted and verified",
            json!({"model": {"image": "models.example/net@sha256:bb", "verification": {"publicKey": key}}}),
        ),
        (
            "an image that is fetched",
            json!({"model": {"image": "models.example:5000/net:v1@sha256:bb", "delivery": "Fetch"},
            "pod": {"imagePullSecrets": [{"name": "registry"}]}}),
        ),
        (
            "a claim",
            json!({"model": {"volumeClaim": {"name": "models", "path": "nets/one"}}}),
        ),
        (
            "a claim that is verified",
            json!({"model": {"volumeClaim": {"name": "models"}, "verification": {"publicKey": key},
                "digest": format!("sha256:{}", "c".repeat(64))}}),
        ),
        (
            "fetched into an emptyDir",
            json!({"model": {"uri": pinned, "verification": {"publicKey": key}},
            "fetch": {"credentials": {"secretName": "known"}, "runAsUser": 1337}}),
        ),
        (
            "fetched into a volume",
            json!({"model": {"uri": pinned},
            "fetch": {"volume": {"storageClassName": "fast", "size": "3Gi"}, "resources": {"limits": {"memory": "1Gi"}}}}),
        ),
        (
            "fetched into a cache",
            json!({"model": {"uri": pinned, "endpoint": "http://r.example:5000"},
            "fetch": {"cache": {"volumeClaim": {"name": "shared"}, "maximumSize": "9Gi"}, "identity": "Pod"}}),
        ),
    ]
}

/// Registries whose tokens another host issues are listed under `endpoints` (docs/model-hubs.md). Templates are frozen:
/// what is not mounted now never will be.
#[test]
fn a_pull_secret_is_mounted_with_the_servers_that_it_lists() {
    let spec = json!({"model": {"uri": "oci://r.example/net:v1"}, "pod": {"imagePullSecrets": [{"name": "registry"}]}});
    let looked_for = observed(spec.clone()).planned().resolver.wanted.unwrap();
    let found = observed(spec).found(true).planned();
    let server = found.revisions[0].deployment.spec.template.spec.clone();
    for pod in [looked_for.spec, server] {
        let volumes = pod.unwrap().volumes.unwrap();
        let secrets = volumes
            .iter()
            .find(|volume| volume.name == "pull-secrets")
            .unwrap();
        let sources = secrets.projected.clone().unwrap().sources.unwrap();
        let secret = sources[0].secret.clone().unwrap();
        let items = secret.items.unwrap().into_iter();
        let items: Vec<_> = items.map(|item| (item.key, item.path)).collect();
        let item = |key: &str| (key.to_owned(), format!("registry/{key}"));
        assert_eq!(items, [".dockerconfigjson", ".dockercfg", "endpoints"].map(item));
        assert_eq!(secret.optional, Some(true), "none of them has to be there");
    }
}

/// What a pod has for its model, in short: its init container and volumes.
#[test]
fn the_pods_of_every_source() {
    let shown: Vec<Value> = sources()
        .into_iter()
        .map(|(what, spec)| {
            let plan = observed(spec).planned();
            let template = serde_json::to_value(&plan.revisions[0].deployment.spec.template).unwrap();
            let pod = &template["spec"];
            json!({"what": what, "initContainers": pod["initContainers"], "volumes": pod["volumes"],
                "mounts": pod["containers"][0]["volumeMounts"], "fsGroup": pod["securityContext"]["fsGroup"],
                "annotations": template["metadata"]["annotations"],
                "deadline": plan.revisions[0].deployment.spec.progress_deadline_seconds})
        })
        .collect();
    insta::assert_yaml_snapshot!(shown);
}

/// Otherwise the operator refuses its own templates, and applies nothing any more.
#[test]
fn the_operator_knows_its_own_templates_of_every_source() {
    for (what, spec) in sources() {
        let observed = observed(spec);
        let first = observed.planned();
        let mut running = observed.running(&first, 1, 1);
        let again = running.planned();
        assert_eq!(
            again.revisions[0].deployment, first.revisions[0].deployment,
            "{what}"
        );
        assert_eq!(again.runtime_update, None, "{what}");
        // A cluster that gets or loses image volumes changes nothing that exists.
        running.cluster.no_image_volumes = Some("there are none".to_owned());
        let elsewhere = running.planned();
        assert_eq!(
            elsewhere.revisions[0].deployment, first.revisions[0].deployment,
            "{what}"
        );
        assert_eq!(elsewhere.runtime_update, None, "{what}");
    }
}

/// Who deletes a Deployment to have it back would get another model without having been told.
#[test]
fn a_template_that_was_changed_is_told_with_what_deleting_it_does_to_the_model() {
    let found = observed(json!({"model": {"uri": "s3://models/net.onnx"}})).found(true);
    let mut plan = found.planned();
    let deployment = &mut plan.revisions[0].deployment;
    deployment.spec.template.spec.as_mut().unwrap().host_pid = Some(true);
    let copy = serde_json::to_string(&deployment.spec.template).unwrap();
    deployment
        .metadata
        .annotations
        .as_mut()
        .unwrap()
        .insert(crate::crd::TEMPLATE_ANNOTATION.into(), copy);
    let said = validate(&found.running(&plan, 1, 1)).unwrap_err().to_string();
    assert!(
        said.ends_with(
            "delete it to have it recreated, with the version of the model that is at spec.model.uri then"
        ),
        "{said}"
    );
}

/// Whoever may write to a claim changes it after its signature was checked; only the server checks at each load.
#[test]
fn a_signature_of_a_claim_binds_only_with_a_digest() {
    let digest = format!("sha256:{}", "c".repeat(64));
    let refused = |digest: Option<&str>| {
        let model =
            json!({"volumeClaim": {"name": "models"}, "digest": digest, "verification": {"publicKey": "k"}});
        validate(&observed(json!({"model": model})))
            .err()
            .map(|problem| problem.to_string())
    };
    assert_eq!(refused(Some(&digest)), None);
    let said = refused(None).unwrap();
    assert!(said.contains("needs spec.model.digest"), "{said}");

    let spec = json!({"model": {"volumeClaim": {"name": "models"}, "digest": digest, "verification": {"publicKey": "k"}}});
    let pod = observed(spec).planned().revisions[0]
        .deployment
        .spec
        .template
        .clone();
    let server = serde_json::to_string(&pod.spec.unwrap().containers[0].env).unwrap();
    assert!(server.contains(&digest), "the server checks it: {server}");
}

/// Kubernetes 1.34 has image volumes only behind a feature gate.
#[test]
fn an_image_is_fetched_where_it_cannot_be_mounted() {
    let delivery = |delivery: &str, has_volumes: bool| {
        let model = json!({"image": "models.example/net:v1@sha256:bb", "delivery": delivery});
        let mut observed = observed(json!({"model": model}));
        observed.cluster.no_image_volumes = (!has_volumes).then(|| "there are none".to_owned());
        let service = validate(&observed).map_err(|problem| problem.to_string())?;
        let plan = plan(&service, &observed, &runtime());
        let frozen = crate::revision::FrozenSource::of(&plan.revisions[0].deployment).unwrap();
        assert!(plan.resolver.wanted.is_none(), "its version is its digest");
        Ok::<_, String>((frozen.source.delivery(), frozen.source.uri()))
    };
    let mounted = ("ImageVolume", "oci://models.example/net:v1@sha256:bb".to_owned());
    let fetched = ("Fetch", "oci://models.example/net@sha256:bb".to_owned());
    assert_eq!(delivery("Auto", true), Ok(mounted.clone()));
    assert_eq!(delivery("Auto", false), Ok(fetched.clone()));
    assert_eq!(delivery("Fetch", true), Ok(fetched));
    assert_eq!(delivery("ImageVolume", true), Ok(mounted));
    let refused = delivery("ImageVolume", false).unwrap_err();
    assert!(
        refused.contains("there are none") && refused.contains("set it to Auto"),
        "{refused}"
    );
}

/// The kubelet replaces `$(NAME)` in the values of variables.
#[test]
fn a_uri_arrives_as_it_is_written() {
    let uri = format!("oci://r.example/$(HOME)/$$net@sha256:{}", "a".repeat(64));
    let plan = observed(json!({"model": {"uri": uri}})).planned();
    let pod = plan.revisions[0].deployment.spec.template.spec.clone().unwrap();
    let env = pod.init_containers.unwrap()[0].env.clone().unwrap();
    let value = env[0].value.clone().unwrap();
    assert!(!value.contains('$'), "{value}");
    let config: modelservice_contract::FetchConfig = serde_json::from_str(&value).unwrap();
    assert_eq!(config.uri, uri);
}
