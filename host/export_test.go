package host

// What the tests of this package see beyond its face.
var (
	DecodeKey      = decodeKey
	EncodeKey      = encodeKey
	ParseAllowFile = parseAllowFile
	Watch          = watch
	ProxyFor       = proxyFor
)

// The head starts between local addresses.
const (
	DialStep     = dialStep
	LoopbackStep = loopbackStep
)
