// KEDA, whose definition of a ScaledObject the tests apply.
module tidegate.dev/dev/keda

go 1.26.0

require github.com/kedacore/keda/v2 v2.21.0
