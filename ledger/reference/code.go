package reference

// code is a number of the page's table of codes.
type code = uint32

const (
	ok                       code = 0
	malformed                code = 1
	tooLarge                 code = 2
	expired                  code = 10
	validUntilTooFar         code = 11
	policyUnknown            code = 20
	policyMismatch           code = 21
	signerClosed             code = 22
	sequenceUsed             code = 30
	sequenceGap              code = 31
	nonceUsed                code = 32
	replayFull               code = 33
	feeAboveMaximum          code = 40
	feeUnpayable             code = 41
	registrationAboveMaximum code = 42
	feeGrantUnusable         code = 43
	witnessMissing           code = 50
	witnessUnknown           code = 51
	witnessSuperfluous       code = 52
	signatureInvalid         code = 60

	assetUnknown         code = 100
	insufficientFunds    code = 101
	supplyExceeded       code = 102
	counterOverflow      code = 103
	nothingToTransfer    code = 104
	ceilingExceeded      code = 105
	depositAboveMaximum  code = 106
	depositUnpayable     code = 107
	assetCreationClosed  code = 110
	assetExists          code = 111
	notIssuer            code = 112
	controlMissing       code = 113
	maxSupplyRaised      code = 114
	issuerLine           code = 115
	creditInUse          code = 116
	policyUnchanged      code = 120
	recoveryUnavailable  code = 121
	recoveryPending      code = 122
	recoveryNone         code = 123
	recoveryOtherPolicy  code = 124
	recoveryTooEarly     code = 125
	accountClosed        code = 130
	lineNotOpen          code = 131
	lineUnknown          code = 132
	lineNotEmpty         code = 133
	lineNotAuthorised    code = 134
	lineFrozen           code = 135
	unchanged            code = 136
	accountInUse         code = 137
	holdUnknown          code = 140
	holdExpired          code = 141
	holdNotPermitted     code = 142
	holdTooEarly         code = 143
	holdPreimageWrong    code = 144
	holdAmountExceeded   code = 145
	holdExpiryOutOfRange code = 146
	holdBucketFull       code = 147
	grantUnknown         code = 150
	grantExpired         code = 151
	grantOtherReceiver   code = 152
	grantExceeded        code = 153

	notValidator             code = 160
	validatorUnknown         code = 161
	validatorExists          code = 162
	validatorSetFull         code = 163
	validatorSetEmpty        code = 164
	validatorQuorumLost      code = 165
	validatorPowersUnsound   code = 166
	validatorNotInactive     code = 167
	proposalUnknown          code = 168
	proposalExpired          code = 169
	proposalExpiryOutOfRange code = 170
	proposalsFull            code = 171
	parametersChanged        code = 172
	parametersInvalid        code = 173
	bondExists               code = 174
	bondMissing              code = 175
	bondLocked               code = 176
)
