-- ARGV: retention
if redis.call('SET', KEYS[1], '', 'NX', 'PX', ARGV[3]) then return {'now'} end
return {'before'}
