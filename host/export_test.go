package host

// What the tests of this package see beyond its face.
var (
	DecodeKey      = decodeKey
	EncodeKey      = encodeKey
	ParseAllowFile = parseAllowFile
	Watch          = watch
)

// DialStep is the head start between local addresses.
const DialStep = dialStep
