# 1. Run the test script
cd /mnt/data_ssd/mcn/middleware
source .venv/bin/activate
python scripts/test_gpu_manager_v2.py

# 2. Test phase preparation (interactive)
python -c "
import asyncio
from lib.gpu_manager_v2 import get_gpu_manager_v2

async def test():
    mgr = get_gpu_manager_v2()

    print('Current status:')
    status = await mgr.get_status()
    for name, svc in status['services'].items():
        print(f'  {name}: {svc[\"state\"]}')

    print('\nPreparing for Phase 4 (Video Generation)...')
    success = await mgr.prepare_for_phase(4)
    print(f'Result: {\"SUCCESS\" if success else \"FAILED\"}')

    print('\nNew status:')
    status = await mgr.get_status()
    for name, svc in status['services'].items():
        print(f'  {name}: {svc[\"state\"]}')

asyncio.run(test())
"

# 3. Verify ComfyUI is running
curl -s http://localhost:8188/system_stats | jq '.system.python_version'

# 4. Verify CosyVoice is NOT running (preempted)
curl -s http://localhost:50000/docs || echo "CosyVoice stopped (expected)"
