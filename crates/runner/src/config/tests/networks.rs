//! Tests of the keys of networks: vision transformers, and the channels of images.

use invaspread_models::{NetworkConfig, VitConfig};

use super::{config, error, hash, overrides};
use crate::config::plan_runs;

/// The error of a run with these arguments before it begins, if there is one.
fn refused(arguments: &[&str]) -> Option<String> {
    plan_runs(&overrides(arguments), false, &|_| None).err().map(|error| error.to_string())
}

#[test]
fn a_vision_transformer_has_its_patches_and_the_size_of_the_views() {
    let network = |arguments: &[&str]| config(&[&["device=cpu"], arguments].concat()).recipe().network;
    assert_eq!(network(&["model=vit_tiny"]), NetworkConfig::from(VitConfig::tiny()));
    let large = VitConfig { image: 224, patch: 16, embedding: 64, ..VitConfig::small() };
    let arguments = ["model=vit_small", "model.patch=16", "augment.size=224", "model.embedding=64"];
    assert_eq!(network(&arguments), large.into());
    // A patch that is not set is the default.
    assert_eq!(network(&["model.architecture=vit_tiny"]), VitConfig::tiny().into());
    assert_eq!(refused(&["model=vit_tiny", "device=cpu"]), None);
}

#[test]
fn what_a_vision_transformer_cannot_do_is_told_before_a_run() {
    fn with<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        [&["model=vit_tiny", "device=cpu"], arguments].concat()
    }
    let told = error(&with(&["precision=bf16"]));
    assert!(told.contains("`precision`") && told.contains("f32: a vision transformer"), "{told}");
    let told = error(&with(&["model.patch=0"]));
    assert!(told.contains("`model.patch`") && told.contains("at least 1"), "{told}");
    let told = error(&["model.patch=4"]);
    assert!(told.contains("`model.patch`") && told.contains("model=vit_tiny"), "{told}");
    let told = refused(&with(&["augment.size=30"])).unwrap();
    assert!(
        told.contains("found 4") && told.contains("a divisor of 30") && told.contains("28 or 32 pixels"),
        "{told}"
    );
    let told = refused(&with(&["augment.size=3"])).unwrap();
    assert!(told.contains("views of 4 pixels fit"), "{told}");
    for argument in ["model.width=18", "model.depth=50", "model.pool=4", "model.stem=imagenet"] {
        let told = error(&with(&[argument]));
        let key = argument.split_once('=').unwrap().0;
        assert!(told.contains(key) && told.contains("only residual networks"), "{told}");
        let told = error(&["model=inception_v1", "model.pretrained=false", argument]);
        assert!(told.contains(key) && told.contains("is Inception-v1"), "{told}");
    }
    // A suite's rows may say what holds for other networks.
    assert_eq!(refused(&with(&["model.pool=0", "model.stem=cifar"])), None);
    // Small views of DINO: 24 pixels fit, 22 do not.
    let dino = |size: &str| {
        let size = format!("method.small_size={size}");
        refused(&with(&["method=dino", "method.small_views=2", &size]))
    };
    assert_eq!(dino("24"), None);
    assert!(dino("22").unwrap().contains("a divisor of 22"), "{:?}", dino("22"));
}

/// A profile sets the width of every network, and a file may say what holds without it.
#[test]
fn what_a_network_does_not_have_is_no_part_of_its_name() {
    let sizes = ["optim.epochs=2", "data.subset=9", "data.test_subset=9"];
    let vit = |more: &[&str]| hash(&[&["model=vit_tiny", "device=cpu"], &sizes[..], more].concat());
    let quick = ["optim.batch_size=64", "protocol.milestones=[0.75,0.875]"];
    assert_eq!(vit(&["profile=quick"]), vit(&quick));
    assert_eq!(vit(&["model.patch=4"]), vit(&[]));
    assert_ne!(vit(&["model.patch=8"]), vit(&[]));
    assert_eq!(hash(&["model.input_channels=3"]), hash(&[]));
}

#[test]
fn images_have_three_channels_or_one() {
    let gray = ["model.input_channels=1", "augment.normalize.mean=[0.48]", "augment.normalize.std=[0.24]"];
    let one = config(&gray);
    assert_eq!((one.recipe().network.channels(), one.augment.normalize.mean), (1, vec![0.48]));
    assert_eq!(refused(&gray), None);
    assert_eq!(config(&[]).recipe().network.channels(), 3);
    let told = error(&["model.input_channels=1"]);
    assert!(told.contains("`augment.normalize.mean`") && told.contains("model.input_channels=1"), "{told}");
    let told = error(&gray[1..]);
    assert!(told.contains("`augment.normalize.mean`") && told.contains("expected 3"), "{told}");
    for channels in ["0", "2", "4"] {
        let told = error(&[&format!("model.input_channels={channels}")]);
        assert!(told.contains("`model.input_channels`") && told.contains("1 (gray)"), "{told}");
    }
    let told = error(&["augment.normalize.std=[1,1]"]);
    assert!(told.contains("`augment.normalize.std`"), "{told}");
    assert_ne!(hash(&gray), hash(&[]));
}
