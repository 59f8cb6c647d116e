-- Every step of the lock is one run of this script, so that nothing happens between its looking and its doing.
--
-- KEYS: the lock; the counter of fences; who waits, by arrival; who waits, by when it was last seen.
-- ARGV: the job; our value; a value of ours that is to go; who we are among those who wait ('': not among them); the
-- lock's time limit in ms; a fence that all must be above; how many fences; 1 when a free lock may be taken; the
-- channel; a digest.
--
-- Answer: {word, value, ms left, others who wait, first fence, digest of the value, the last fence that was given}.
-- Our own value comes without a digest and with the whole time. Numbers in here are doubles, exact below 2^53, and told
-- as text. The commonest jobs come first, and ask for no more than they need: a run is most of what the lock costs.
if redis.replicate_commands then redis.replicate_commands() end

local lock, counter, waiting, seen = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local job, mine, old, me, ttl, floor, n_fences, may_take, channel, digest = unpack(ARGV)
local call = redis.call
if mine == '' then mine = false end -- an empty value is somebody else's
if old == '' then old = false end

local LIVE = 2000000 -- us: who was not seen for so long does not wait any more
local MAX = 9007199254740992

local time = call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local value = call('GET', lock) or nil
local last_fence = tonumber(call('GET', counter) or '0') or 0
if not (last_fence > 0 and last_fence < MAX) then last_fence = 0 end

local function text(number) return string.format('%.0f', number) end

-- The clock may have been set back: who was seen in the future is not there either.
local function is_live(at) return at >= now - LIVE and at <= now + LIVE end

local function others()
	local n = call('ZCOUNT', seen, text(now - LIVE), text(now + LIVE))
	if n > 0 and me ~= '' and is_live(tonumber(call('ZSCORE', seen, me) or '0') or 0) then n = n - 1 end
	return n
end

local function report(word, fence)
	if not value then return { word, '', -2, others(), '', '', text(last_fence) } end
	if value == mine then return { word, mine, tonumber(ttl), others(), fence or '', '', text(last_fence) } end
	return { word, string.sub(value, 1, 300), call('PTTL', lock), others(), '', redis.sha1hex(value), text(last_fence) }
end

local function fences(n)
	local first = math.max(last_fence, tonumber(floor), now) + 1
	if first + n >= MAX then return nil end
	last_fence = first + n - 1
	call('SET', counter, text(last_fence))
	return text(first)
end

local function refuse() return redis.error_reply('NOFENCES there are no fences left below 2^53') end

-- What is held stays so, whether there are fences or not: leases of before need none.
local function prolong()
	local n, fence = tonumber(n_fences), nil
	call('PEXPIRE', lock, ttl)
	if n > 0 then fence = fences(n) end
	return report('held', fence)
end

if job == 'renew' then
	if value == mine then return prolong() end
	return report(value and 'foreign' or 'gone')
end

local function take()
	local fence = fences(1)
	if not fence then return refuse() end
	call('SET', lock, mine, 'PX', ttl)
	value = mine
	return report('held', fence)
end

if job == 'acquire' and not value and may_take == '1' and call('ZCARD', waiting) == 0 then return take() end

local function tell(word) redis.pcall('PUBLISH', channel, word) end

local function leave()
	if me == '' then return end
	call('ZREM', waiting, me)
	call('ZREM', seen, me)
end

-- Who does not wait does not listen for it.
local function let_go()
	call('DEL', lock)
	value = nil
	if call('ZCARD', waiting) > 0 then tell('released') end
end

if job == 'release' then
	leave()
	if value == mine then let_go() end
	return report('done')
end

local function join()
	local is_new = call('ZADD', waiting, 'NX', text(now), me)
	call('ZADD', seen, text(now), me)
	call('PEXPIRE', waiting, 10000)
	call('PEXPIRE', seen, 10000)
	return is_new == 1
end

local function is_first()
	while true do
		local first = call('ZRANGE', waiting, 0, 0)[1]
		if not first or first == me then return true end
		if is_live(tonumber(call('ZSCORE', seen, first) or '0') or 0) then return false end
		call('ZREM', waiting, first)
		call('ZREM', seen, first)
	end
end

if job == 'acquire' then
	if value and value == old then let_go() end
	if value == mine then -- by an earlier attempt whose answer was lost
		leave()
		call('PEXPIRE', lock, ttl)
		local fence = fences(1)
		return fence and report('held', fence) or refuse()
	end
	local is_new = join()
	if is_first() and not value and may_take == '1' then
		leave()
		return take()
	end
	if is_new then tell('waiting') end
	return report(value and 'foreign' or 'free')
end

-- The server lost its data; whoever believes to hold the lock puts it back.
if job == 'restore' then
	if value and value ~= mine then return report('foreign') end
	call('SET', lock, mine, 'PX', ttl)
	value = mine
	return prolong()
end

if job == 'force' and value and value ~= mine then
	if digest ~= '' and redis.sha1hex(value) ~= digest then return report('changed') end
	local answer = report('forced')
	call('DEL', lock)
	tell('forced')
	return answer
end

return report(job == 'force' and 'kept' or 'done')
